"""SIGTERM and SIGINT as something to poll, and to ask."""

import os
import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _forget() -> None:
    """A process that a transform forks is to end of a signal, and not to note it down."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


class Termination:
    """The wish that this process end. A flag alone would leave a poll asleep, a pipe alone costs a read to ask."""

    def __init__(self) -> None:
        self.is_asked = False
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._ask)
        os.register_at_fork(after_in_child=_forget)

    def fileno(self) -> int:
        """The descriptor that becomes readable with each signal."""
        return self._reader

    def drain(self) -> None:
        """Makes it unreadable until the next signal. To be called when it is readable."""
        os.read(self._reader, 64)

    def _ask(self, _number: int, _frame: object) -> None:
        self.is_asked = True
