"""One broker for each run directory. Without a lock, libzmq lets a second broker take the sockets over in silence."""

import fcntl
import os
from pathlib import Path

from racepool.protocol.own_directory import opened
from racepool.protocol.processes import lock_holder


class LockTakenError(Exception):
    """Another process holds the lock."""


class BrokerLock:
    """The lock file `broker.lock`, held until the process ends. Its text is the pid that the holder has for itself.

    The kernel releases a POSIX record lock at any end of its process, and no child inherits it. But it also releases
    the lock when the process closes any descriptor of the file, so nothing else in this process may open it.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the lock.

        Raises:
            LockTakenError: names the holder's pid, as it is here.
            SettingsError: another user can replace the directory, or write to it.
        """
        path = directory / "broker.lock"
        place = opened(str(directory), directory)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(path.name, flags, 0o600, dir_fd=place)
        finally:
            os.close(place)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = lock_holder(self._fd)
            who = f"pid {holder}" if holder else "not visible from here"
            raise LockTakenError(f"another broker ({who}) holds {path}; stop it, or set RACEPOOL_DIR") from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Gives the lock up."""
        os.close(self._fd)
