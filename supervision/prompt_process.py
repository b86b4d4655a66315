"""supervisord's process with two changes: it is started once a second at most, and its end is told with its reason."""

import time
from pathlib import Path

from supervisor import events, process
from supervisor.states import ProcessStates

from racepool.supervision.endings import AT_ONCE_S, Ending, last_words


class ProgramEnded(events.Event):  # type: ignore[misc]  # supervisor has no types
    """A program ended, or could not be started, and nobody had asked supervisord to stop it."""

    def __init__(self, ending: Ending, *, is_first: bool) -> None:
        self.ending = ending
        self.is_first = is_first  # it was the first start of this program


class PromptProcess(process.Subprocess):  # type: ignore[misc]  # supervisor has no types
    """A program of supervisord."""

    _starts = 0
    _log_bytes = 0  # of its log, before this start

    def transition(self) -> None:
        """Starts an ended program again, but not within a second of its start, whatever has woken supervisord."""
        if self.state == ProcessStates.EXITED and 0 <= time.time() - self.laststart < AT_ONCE_S:
            return
        super().transition()

    def spawn(self) -> int | None:
        """Starts the program."""
        self._starts += 1
        try:
            self._log_bytes = self._log.stat().st_size if self._log else 0
        except OSError:
            self._log_bytes = 0
        pid: int | None = super().spawn()
        if self.spawnerr is not None:
            self._tell(None, self.spawnerr)
        return pid

    def finish(self, pid: int, status: int) -> None:
        """Notes that the program has ended."""
        is_wanted = self.killing
        super().finish(pid, status)
        if not is_wanted:
            self._tell(status, last_words(self._log, self._log_bytes))

    @property
    def _log(self) -> Path | None:
        name = self.config.stdout_logfile or self.config.stderr_logfile
        return Path(name) if name and not name.startswith("/dev/") else None

    def _tell(self, status: int | None, words: str) -> None:
        lived_s = max(0.0, time.time() - self.laststart)
        ending = Ending(self.config.name, self.group.config.name, lived_s, status, words)
        events.notify(ProgramEnded(ending, is_first=self._starts == 1))
