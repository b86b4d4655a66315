"""The terminal while it is ours: single keys and signals, as something to poll; afterwards it is as it was."""

import os
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Self

HEARD = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM, signal.SIGINT)
ESCAPE = b"\x1b"  # how keys begin that have no letter
INTERRUPT = "\x03"


class Terminal:
    """A context manager. Within it keys come at once and unechoed, and the signals of HEARD do nothing by themselves.

    A standard input that is no terminal has no keys: `keys_fd` is None.
    """

    def __init__(self) -> None:
        self.keys_fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self.signals_fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, lambda _number, _frame: None) for number in HEARD}
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if self.keys_fd is not None:
            self._modes = termios.tcgetattr(self.keys_fd)
            tty.setcbreak(self.keys_fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.keys_fd is not None:
            with suppress(termios.error):  # it has been closed
                termios.tcsetattr(self.keys_fd, termios.TCSAFLUSH, self._modes)
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.signals_fd)
        os.close(self._writer)

    def typed(self) -> str:
        """What was typed, once there is something; at the end of all input as if Ctrl-C had been."""
        if self.keys_fd is None:
            return ""
        keys = os.read(self.keys_fd, 64)
        if not keys:
            return INTERRUPT
        return "" if keys.startswith(ESCAPE) else keys.decode(errors="ignore")

    def signals(self) -> set[int]:
        """Which signals came, once some did."""
        return set(os.read(self.signals_fd, 64))
