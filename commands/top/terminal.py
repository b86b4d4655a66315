"""The terminal while `top` runs: single keys and signals, as file descriptors to poll. Restores it at the end."""

import os
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import TracebackType
from typing import Self

HEARD = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM, signal.SIGINT)
ESCAPE = b"\x1b"  # the first byte of keys such as arrows
INTERRUPT = "\x03"


class Terminal:
    """A context manager. Inside it, keys arrive at once and without echo, and the signals in HEARD have no own effect.

    `keys_fd` is None if standard input is no terminal.
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
            with suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(self.keys_fd, termios.TCSAFLUSH, self._modes)
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.signals_fd)
        os.close(self._writer)

    def typed(self) -> str:
        """The keys that were typed; call it when `keys_fd` is readable. The end of the input counts as Ctrl-C."""
        if self.keys_fd is None:
            return ""
        keys = os.read(self.keys_fd, 64)
        if not keys:
            return INTERRUPT
        return "" if keys.startswith(ESCAPE) else keys.decode(errors="ignore")

    def signals(self) -> set[int]:
        """The signals that arrived; call it when `signals_fd` is readable."""
        return set(os.read(self.signals_fd, 64))
