"""The dead tasks as they are now, read anew only when their directory has changed: some 50 MB may lie there."""

import time
from pathlib import Path

from racepool.commands.dead.tasks import DeadTasks
from racepool.protocol.quarantine import directory_in

SETTLED_S = 1.0  # a directory that changed later than this may change again within one tick of its clock


class DeadView:
    """May be used from several threads."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._seen: tuple[int, DeadTasks] | None = None

    def look(self) -> DeadTasks:
        """What is there.

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
        except OSError:  # nothing was ever given up; or it cannot be read, which the tasks themselves tell
            return 0
