"""How the lab's own programs end with it: the lab holds the other end of their standard input."""

import os
import sys
import threading

ABANDONED = 3


def end_with_the_lab() -> None:
    """Watches standard input in a thread, and ends this process at once when it ends."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    while os.read(sys.stdin.fileno(), 1):  # a buffered read holds a lock that aborts the interpreter at its end
        pass
    os._exit(ABANDONED)
