"""SIGTERM and SIGINT as a descriptor to poll and a flag to ask."""

import os
import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _forget() -> None:
    """After a fork by a transform: a signal must end the child, not only set a flag."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


class Termination:
    """Whether this process was asked to end. The pipe wakes a poll; the flag can be asked without a system call."""

    def __init__(self) -> None:
        self.is_asked = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.listen()
        for number in SIGNALS:
            signal.signal(number, self._ask)
        os.register_at_fork(after_in_child=_forget)

    def listen(self) -> None:
        """Has each signal written into the pipe; again if a transform has changed that.

        Raises:
            OSError, ValueError: the pipe was closed.
        """
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """The descriptor that becomes readable with each signal."""
        return self._reader

    def drain(self) -> None:
        """Empties the descriptor until the next signal. Call it only when the descriptor is readable."""
        os.read(self._reader, 64)

    def _ask(self, _number: int, _frame: object) -> None:
        self.is_asked = True
