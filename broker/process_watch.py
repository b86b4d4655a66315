"""Watches the worker processes of this host through their pidfds: which ended, which use CPU; and kills them."""

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
    ticks: int | None = None  # CPU time at the last look; None if it could not be read


class ProcessWatch:
    """Watched processes by session. One epoll descriptor covers all of them, so polling costs no more for 500.

    A pidfd names one process for good: a kill through it can never hit another process that got the same pid.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[Id, _Watched] = {}
        self._session_of: dict[int, Id] = {}

    def fileno(self) -> int:
        """The descriptor that becomes readable when a watched process ends."""
        return self._epoll.fileno()

    def watch(self, session_id: Id, pid: int) -> bool:
        """Watches the process; false if it has ended already."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # for example, no free descriptor: then only silence shows its end
        self._epoll.register(pidfd, select.EPOLLIN)
        self._watched[session_id] = _Watched(pid, pidfd, cpu_ticks(pid))
        self._session_of[pidfd] = session_id
        return True

    def unwatch(self, session_id: Id) -> None:
        """Ends the watch, if there is one."""
        watched = self._watched.pop(session_id, None)
        if watched is not None:
            del self._session_of[watched.pidfd]
            self._epoll.unregister(watched.pidfd)
            os.close(watched.pidfd)

    def kill(self, session_id: Id) -> None:
        """Sends SIGKILL, and ends the watch."""
        watched = self._watched.get(session_id)
        if watched is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(watched.pidfd, signal.SIGKILL)
            self.unwatch(session_id)

    def ended(self) -> list[Id]:
        """The sessions whose process has ended."""
        return [self._session_of[pidfd] for pidfd, _ in self._epoll.poll(0)]

    def death_signals(self, session_ids: Iterable[Id]) -> dict[Id, int]:
        """The signals that ended these processes, as far as the kernel tells."""
        watched = [(session_id, self._watched[session_id]) for session_id in session_ids]
        numbers = [(session_id, death_signal(each.pidfd, each.pid)) for session_id, each in watched]
        return {session_id: number for session_id, number in numbers if number is not None}

    def has_progress(self, session_id: Id) -> bool:
        """Whether the process has used CPU since the last call, or since the watch began; or waits for a CPU."""
        watched = self._watched.get(session_id)
        if watched is None:
            return False
        before, watched.ticks = watched.ticks, cpu_ticks(watched.pid)
        if before is None or watched.ticks is None:
            return False
        return watched.ticks > before or process_state(watched.pid) == RUNNABLE
