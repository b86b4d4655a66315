"""One broker per run directory: libzmq would let a second one steal the first one's sockets in silence."""

import fcntl
import os
from pathlib import Path


class LockTakenError(Exception):
    """Another process holds the lock."""


class BrokerLock:
    """The lock file `broker.lock`, held until the process ends. Its text is the holder's pid.

    A POSIX record lock goes with its process, whatever ends that, and is not inherited by a child; it would also go
    with any other descriptor of the file that this process closed, so nothing else may open it here.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the lock.

        Raises:
            LockTakenError: names the holder's pid.
        """
        path = directory / "broker.lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            raise LockTakenError(f"another broker (pid {holder}) holds {path}; stop it, or set RACEPOOL_DIR") from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Gives the lock up."""
        os.close(self._fd)
