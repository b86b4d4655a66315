"""The lock on a run directory: one supervisord for each directory; and folders that ended local pools left behind."""

import fcntl
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

LEFT_ALONE_S = 60.0  # a younger folder may be one that a pool is just making, in another container
LOCAL_POOL = re.compile(r"racepool-(\d+)-[0-9a-f]{8}")  # the pid is of the process that made it


def hold(directory: Path) -> int | None:
    """Locks the directory. The lock lasts until all copies of the returned descriptor are closed.

    Returns:
        The descriptor; None if another process holds the lock.

    Raises:
        OSError: the directory cannot be opened or locked.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sweep(parent: Path) -> None:
    """Removes the folders of local pools whose caller and whose supervisord were both killed.

    A folder is left alone if it is not ours, if the process that made it lives, or if its lock is held: the pool may
    live in another container.
    """
    with suppress(OSError):
        for path in parent.iterdir():
            named = LOCAL_POOL.fullmatch(path.name)
            if named and not Path("/proc", named[1]).exists():
                with suppress(OSError):
                    _remove(path)


def _remove(path: Path) -> None:
    status = path.lstat()
    if status.st_uid != os.getuid() or not 0 < status.st_mtime < time.time() - LEFT_ALONE_S:
        return
    held = hold(path)
    if held is not None:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)
