"""Ends what a worker has started and left running: children of a transform, with all their descendants.

A pool has a mark in the environment of its processes, which their children inherit. While supervisord lives, orphans
come to it (it is their subreaper), so it also finds those that have removed the mark. After a kill -9 of supervisord
the watchdog looks for the mark in all processes.
"""

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from racepool.protocol import clock

MARK = "MARK_OF_RACEPOOL"  # no prefix of a setting's variable
PR_SET_CHILD_SUBREAPER = 36
END_S = 1.0  # how long the killing goes on; a process that is in the kernel may take a while to end
PAUSE_S = 0.005
_PREFIX = f"{MARK}=".encode()


def mark_of(pid: int) -> bytes:
    """The mark that a process was started with; empty if it has none, is gone, or belongs to another user."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
    return next((entry[len(_PREFIX) :] for entry in environment.split(b"\0") if entry.startswith(_PREFIX)), b"")


def kill_marked(mark: bytes) -> None:
    """Kills all processes with this mark but the calling one, until none is left."""
    deadline = clock.now() + END_S
    while mark and clock.now() < deadline:
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        marked = [pid for pid in pids if pid != os.getpid() and mark_of(pid) == mark]
        if not marked:
            return
        for pid in marked:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                if mark_of(pid) == mark:  # the pid may have gone to another process before the pidfd was opened
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        clock.sleep(PAUSE_S)


class Orphanage:
    """Makes this process the parent of all orphans among its descendants, and kills them.

    Children that this process has from before (from the program that became supervisord by exec) are left alone. As
    process 1 of a container it also gets orphans of strangers (`docker exec`): there, only those with the mark are
    killed.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._strangers = set(_children(os.getpid()))
        self._mark = mark_of(os.getpid())

    def kill(self, own: Iterable[int]) -> bool:
        """Kills all children but `own` and the strangers, with their descendants. True if there were any.

        A child's pid cannot go to another process before this process has reaped it.
        """
        children = set(_children(os.getpid()))
        self._strangers &= children
        orphans = children - self._strangers - set(own)
        if os.getpid() == 1:
            orphans = {pid for pid in orphans if self._mark and mark_of(pid) == self._mark}
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(orphans)

    def end(self) -> None:
        """Kills and reaps until no orphan is left. To be called when this process has no other child any more.

        The descendants of a killed orphan come to this process, and are killed in the next round.
        """
        deadline = clock.now() + END_S
        while self.kill(()) and clock.now() < deadline:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            clock.sleep(PAUSE_S)


def _children(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, path.read_bytes().split())
