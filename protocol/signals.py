"""SIGTERM and SIGINT as something to poll."""

import os
import signal


def wakeup_pipe() -> int:
    """The end of a pipe that becomes readable at SIGTERM or SIGINT; a flag alone would leave a poll asleep."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader
