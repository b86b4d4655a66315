"""What the programs logged, as far as the lab needs it. Instants are converted to the monotonic clock."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

KEPT: Final = frozenset(
    {
        "broker_started", "broker_failed", "broker_refused", "broker_paused", "worker_lost", "worker_ready",
        "worker_silent", "worker_stopped", "task_abandoned", "task_given_up", "log_lines_dropped",
    }
)  # fmt: skip
EXITED: Final = "exited"
SPAWNED: Final = "spawned"
DIED: Final = "died by itself"
ENDED_BY_WATCHDOG: Final = "ended by the watchdog"
_SUPERVISORD_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) [A-Z]+ (.*)")
_EXITED_LINE = re.compile(r"(?:exited|stopped): (\S+) \((.*)\)")
_SPAWNED_LINE = re.compile(r"spawned: '(\S+)' with pid (\d+)")
_GAVE_UP = ("FATAL", "BACKOFF", "spawnerr", "gave up")
_OWN_DEATHS = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One log line."""

    at: float
    event: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def worker(self) -> str:
        """The worker that the entry is about; empty if there is none."""
        return str(self.fields.get("worker", ""))

    @property
    def pid(self) -> int:
        """The pid in the line; 0 if there is none."""
        return int(self.fields.get("pid", 0))


@dataclass(frozen=True, slots=True)
class Move:
    """A task was assigned to a worker (`is_back` false), or went back to its place in the backlog."""

    at: float
    task_id: str
    is_back: bool


class ProgramLogs:
    """The log lines that are judged: the events in KEPT, the moves of tasks, and alarms.

    Attributes:
        moves: of tasks, to workers and back; one list for each epoch of the broker.
        has_gaps: for each epoch, whether its log has lost lines.
        workers_of: the workers of each task; None after the lab has no more use for it.
        alarms: failures that no fault explains, as text.

    Args:
        wall_offset_s: the wall clock minus the monotonic clock.
        spawned: takes the pid of each program that supervisord starts, by name.
    """

    def __init__(self, wall_offset_s: float, spawned: dict[str, int] | None = None) -> None:
        self.entries: list[LogEntry] = []
        self.moves: list[list[Move]] = [[]]
        self.workers_of: dict[str, set[str]] | None = {}
        self.has_gaps: list[bool] = [False]
        self.alarms: list[str] = []
        self._offset_s = wall_offset_s
        self._spawned = {} if spawned is None else spawned

    def on_broker_line(self, line: bytes) -> None:
        """Takes a line of the broker's log."""
        entry = self._parsed(line)
        if entry is None:
            self.on_other_line("broker", line)
            return
        if entry.event == "broker_started":
            self.moves.append([])
            self.has_gaps.append(False)
        elif entry.event == "log_lines_dropped":
            self.has_gaps[-1] = True
        elif entry.event in ("task_assigned", "task_requeued", "task_returned"):
            move = Move(entry.at, str(entry.fields["task_id"]), entry.event != "task_assigned")
            self.moves[-1].append(move)
            if self.workers_of is not None:
                self.workers_of.setdefault(move.task_id, set()).add(entry.worker)
        if entry.event in KEPT:
            self.entries.append(entry)

    def on_supervisord_line(self, line: bytes) -> None:
        """Takes a line of supervisord's log."""
        found = _SUPERVISORD_LINE.fullmatch(line.decode(errors="replace").strip())
        if found is None:
            return
        instant, milliseconds, text = found.groups()
        at = time.mktime(time.strptime(instant, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000 - self._offset_s
        if exited := _EXITED_LINE.match(text):
            self.entries.append(LogEntry(at, EXITED, {"worker": exited[1], "how": exited[2]}))
            if any(signal in exited[2] for signal in _OWN_DEATHS):
                self.entries.append(LogEntry(at, DIED, {"worker": exited[1], "how": exited[2]}))
        elif spawned := _SPAWNED_LINE.match(text):
            self._spawned[spawned[1]] = int(spawned[2])
            self.entries.append(LogEntry(at, SPAWNED, {"worker": spawned[1], "pid": int(spawned[2])}))
        if any(word in text for word in _GAVE_UP):
            self.alarms.append(f"supervisord: {text}")

    def on_watchdog_line(self, line: bytes) -> None:
        """Takes a line of the watchdog's log: only what it killed is kept."""
        entry = self._parsed(line)
        if entry is None or entry.event not in ("worker_killed", "broker_killed"):
            self.on_other_line("watchdog", line)
            return
        name = str(entry.fields["process"]).rpartition(":")[2]
        self.entries.append(LogEntry(entry.at, ENDED_BY_WATCHDOG, {"worker": name, "pid": entry.pid}))

    def on_other_line(self, program: str, line: bytes) -> None:
        """Takes a line of any other log: only a program's own failure is kept."""
        if (
            b"worker_failed" in line
            or b"worker_refused" in line
            or line.startswith((b"Traceback", b"Assertion failed"))
        ):
            self.alarms.append(f"{program}: {line.decode(errors='replace')[:300]}")

    def of(self, *events: str) -> Iterator[LogEntry]:
        """The entries of these events, in the order of their lines."""
        return (entry for entry in self.entries if entry.event in events)

    def _parsed(self, line: bytes) -> LogEntry | None:
        if not line.startswith(b"{"):
            return None
        try:
            fields = orjson.loads(line)
            instant = fields.get("timestamp")
            at = datetime.fromisoformat(instant).timestamp() - self._offset_s if instant else 0.0
            return LogEntry(at, str(fields["event"]), fields)
        except (ValueError, KeyError):  # the writer died in the middle of the line
            return None
