"""The dead tasks as they are now. They are read again only after a change of their directory: it may hold 50 MB."""

import time
from pathlib import Path

from racepool.commands.dead.tasks import DeadTasks
from racepool.protocol.quarantine import directory_in

SETTLED_S = 1.0  # after a newer change, another one could have the same timestamp


class DeadView:
    """The dead tasks of one run directory. Several threads may use it."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._seen: tuple[int, DeadTasks] | None = None

    def look(self) -> DeadTasks:
        """Reads the dead tasks, if they may have changed.

        Raises:
            PoolError: the directory cannot be read.
        """
        changed_ns = self._changed_ns()
        seen = self._seen
        if seen is not None and seen[0] == changed_ns:
            return seen[1]
        found = DeadTasks(self._run_dir)
        is_settled = changed_ns < time.time_ns() - SETTLED_S * 1e9
        self._seen = (changed_ns, found) if is_settled else None
        return found

    def _changed_ns(self) -> int:
        try:
            return directory_in(self._run_dir).stat().st_mtime_ns
        except OSError:  # there was no dead task yet, or DeadTasks will raise
            return 0
