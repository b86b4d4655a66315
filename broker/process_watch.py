"""The worker processes of this host through their pidfds: who ended, who still uses CPU, and the kill."""

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from racepool.protocol.messages import Id
from racepool.protocol.processes import cpu_ticks, death_signal, process_state

RUNNABLE = "R"


@dataclass(slots=True)
class _Watched:
    pid: int
    pidfd: int
    ticks: int | None = None


class ProcessWatch:
    """Watched processes by session. One epoll descriptor tells of them all, so that polling costs the same for 500.

    A pidfd names one process for good: a kill through it can never hit another that got the same number.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[Id, _Watched] = {}
        self._session_of: dict[int, Id] = {}

    def fileno(self) -> int:
        """The descriptor that becomes readable when a watched process ends."""
        return self._epoll.fileno()

    def watch(self, incarnation: Id, pid: int) -> bool:
        """Watches the process; false if it has ended already."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # out of descriptors, say: its heartbeats must do
        self._epoll.register(pidfd, select.EPOLLIN)
        self._watched[incarnation] = _Watched(pid, pidfd, cpu_ticks(pid))
        self._session_of[pidfd] = incarnation
        return True

    def unwatch(self, incarnation: Id) -> None:
        """Ends the watch, if there is one."""
        watched = self._watched.pop(incarnation, None)
        if watched is not None:
            del self._session_of[watched.pidfd]
            self._epoll.unregister(watched.pidfd)
            os.close(watched.pidfd)

    def kill(self, incarnation: Id) -> None:
        """SIGKILL, and the end of the watch."""
        watched = self._watched.get(incarnation)
        if watched is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(watched.pidfd, signal.SIGKILL)
            self.unwatch(incarnation)

    def ended(self) -> list[Id]:
        """The sessions whose process has ended."""
        return [self._session_of[pidfd] for pidfd, _ in self._epoll.poll(0)]

    def death_signals(self, incarnations: Iterable[Id]) -> dict[Id, int]:
        """The signals that ended these processes, where one did and the kernel tells."""
        watched = [(incarnation, self._watched[incarnation]) for incarnation in incarnations]
        numbers = [(incarnation, death_signal(each.pidfd, each.pid)) for incarnation, each in watched]
        return {incarnation: number for incarnation, number in numbers if number is not None}

    def has_progress(self, incarnation: Id) -> bool:
        """Whether the process has used CPU since this was asked last, or since the watch began, or waits for a CPU."""
        watched = self._watched.get(incarnation)
        if watched is None:
            return False
        before, watched.ticks = watched.ticks, cpu_ticks(watched.pid)
        if before is None or watched.ticks is None:
            return False
        return watched.ticks > before or process_state(watched.pid) == RUNNABLE
