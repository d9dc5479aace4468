"""Where events are kept: one module a backend, all answering to :mod:`ledger.recorders.base`."""
