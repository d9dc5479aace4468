"""What holds for the whole suite."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C be felt here and in every process that the tests start.

    A shell that runs the suite in the background has it ignored, and that is inherited.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
