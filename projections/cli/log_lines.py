"""What the ledger logs, as lines on standard error like everything else a command has to say."""

import logging

from projections.cli.terminal import write_line

__all__ = ["show_log_lines"]


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write_line(f"lease-ledger: {record.getMessage()}", err=True)


def show_log_lines() -> None:
    """Show what is logged as a warning from now on, safe for a terminal. Logging's own way writes it as it is."""
    for name in ("ledger", "projections"):
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _LogLines) for handler in logger.handlers):
            logger.addHandler(_LogLines(logging.WARNING))
