"""Makes a ledger with a long past through the real decision, fold, codec and chain; run by ``scripts/generate``."""

from generate_parts.writing import Generator

__all__ = ["Generator"]
