"""The watchdog's decisions: which process to kill, and when to wake supervisord. Knows no socket, clock or process.

supervisord has two limits. It calls a frozen process running. And it looks for ended processes once a second, and
restarts them a second later, unless something wakes it. A request for its table of processes wakes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from supervisor.states import ProcessStates

BROKER = "broker"  # groups of supervisord.conf; no other process under the same supervisord is killed
WORKER = "worker"
PROBE_INTERVAL_S = 1.0
PROBE_PATIENCE_S = 3.0
STOPPED_PROBES = 2  # so a broker may stand still, or need for its start, up to five seconds
SILENT_PROBES = 3  # a broker that is not stopped may only wait for a busy CPU; a kill would not help then
UNKNOWN_WORKER_S = 15.0  # longer than the broker takes: it kills a frozen worker that it knows
RESTART_INTERVAL_S = 1.0  # a process that ended sooner after its start is restarted at supervisord's own pace
FIRST_POKE_S = 0.01
POKES = 8  # each after twice the pause of the one before; by the last, supervisord has looked by itself
TABLE_DELAY_S = 0.1  # one reading of the table answers a burst of events

_FINAL_STATES = (ProcessStates.STOPPED, ProcessStates.FATAL, ProcessStates.UNKNOWN)


@dataclass(frozen=True, slots=True)
class SupervisedProcess:
    """A row of supervisord's table."""

    name: str  # with its group, `worker:worker-0`
    group: str
    pid: int  # 0: no process runs
    state: int  # supervisor.states.ProcessStates


@dataclass(frozen=True, slots=True)
class ReadTable:
    """Ask supervisord for its table, which also wakes it; the table comes back as `on_table`."""


@dataclass(frozen=True, slots=True)
class ProbeBroker:
    """Ask the broker for its stats, on a connection of this broker process; they come back as `on_answer`."""

    pid: int


@dataclass(frozen=True, slots=True)
class WatchProcess:
    """Call `on_end` when this process ends."""

    pid: int


@dataclass(frozen=True, slots=True)
class UnwatchProcess:
    """Stop watching this process: it has ended, or the table does not have it any more."""

    pid: int


@dataclass(frozen=True, slots=True)
class KillProcess:
    """Kill this process if supervisord still calls it running under this pid, and log the event."""

    event: str
    name: str
    pid: int
    silent_s: float  # since its last sign of life


Action: TypeAlias = ReadTable | ProbeBroker | WatchProcess | UnwatchProcess | KillProcess


@dataclass(frozen=True, slots=True)
class _Watched:
    """A process that runs; kept by its pid."""

    name: str
    seen_at: float  # when the table first had it


@dataclass(slots=True)
class _Ended:
    """A process that ended and that supervisord is to restart; kept by its name."""

    pid: int
    poke_at: float  # when supervisord is woken next
    pause_s: float = FIRST_POKE_S
    pokes: int = 0


class WatchdogCore:
    """Decides what to do with supervisord's processes and the broker's answers.

    Invariants: a process is killed only if supervisord's last table calls it running. The broker is killed only if this
    broker process has answered before, or if the kernel calls it stopped: with a wrong stats endpoint the watchdog must
    do no harm.

    Args:
        state_of: the kernel's letter for the state of the process with this pid.
    """

    def __init__(self, state_of: Callable[[int], str]) -> None:
        self._state_of = state_of
        self._table: dict[str, SupervisedProcess] = {}  # by name
        self._watched: dict[int, _Watched] = {}  # by pid
        self._ended: dict[str, _Ended] = {}  # by name
        self._table_due_at = -inf  # when the table is read next
        self._ticked_at = inf
        self._broker: SupervisedProcess | None = None  # only while it runs
        self._heard_at: float | None = None  # the last answer of this broker process
        self._probe_at = inf  # when the broker is asked next, if no probe is out
        self._asked_at: float | None = None  # of the probe that is out
        self._failures = 0  # probes in a row without an answer in time
        self._stopped_since: dict[int, float] = {}  # by pid: stopped workers that the broker does not know

    def on_event(self, now: float) -> list[Action]:
        """Notes that supervisord sent an event of any type: its table may have changed."""
        self._table_due_at = min(self._table_due_at, now + TABLE_DELAY_S)
        return []

    def on_table(self, table: Iterable[SupervisedProcess], now: float) -> list[Action]:
        """Notes all rows of supervisord's table."""
        self._table = {process.name: process for process in table}
        names = {process.pid: process.name for process in self._table.values() if process.pid}
        gone = sorted(self._watched.keys() - names)
        new = sorted(names.keys() - self._watched.keys() - {ended.pid for ended in self._ended.values()})
        for pid in gone:  # the table may show an end before the pidfd does
            self._note_end(pid, now)
        for pid in new:
            self._watched[pid] = _Watched(names[pid], now)
        self._ended = {name: ended for name, ended in self._ended.items() if self._is_awaited(name, ended)}
        self._turn_to(next((each for each in self._table.values() if _runs(each, BROKER)), None), now)
        return [*map(UnwatchProcess, gone), *map(WatchProcess, new)]

    def on_end(self, pid: int, now: float) -> list[Action]:
        """Notes that a watched process ended."""
        self._note_end(pid, now)
        if self._broker is not None and self._broker.pid == pid:
            self._turn_to(None, now)
        return [UnwatchProcess(pid)]

    def on_answer(self, broker_pid: int | None, worker_pids: Iterable[int], now: float) -> list[Action]:
        """Notes that the broker answered. An answer that is no stats has no pid, and is a sign of life as well."""
        self._asked_at = None
        self._failures = 0
        self._probe_at = now + PROBE_INTERVAL_S
        if self._broker is None or broker_pid not in (None, self._broker.pid):
            return []
        self._heard_at = now
        return [] if broker_pid is None else self._judge_unknown_workers(set(worker_pids), now)

    def on_refusal(self, now: float) -> None:
        """Notes that our key was refused: silence proves nothing then, until a broker answers again."""
        self._heard_at = None
        self._restart_probing(now + PROBE_INTERVAL_S)

    def on_tick(self, now: float) -> list[Action]:
        """Does what is due. Call it at least once a second, and only after all answers that have come were taken."""
        if now - self._ticked_at > PROBE_PATIENCE_S / 2:  # the watchdog itself stood still: the silence may be its own
            self._restart_probing(now)
        self._ticked_at = now
        actions: list[Action] = []
        if self._poke(now) or self._table_due_at <= now:
            self._table_due_at = inf
            actions.append(ReadTable())
        if self._broker is not None:
            actions += self._judge_broker(self._broker, now)
        return actions

    def next_check(self) -> float:
        """When `on_tick` has something to do."""
        answer_by = inf if self._asked_at is None else self._asked_at + PROBE_PATIENCE_S
        probe_at = inf if self._broker is None or self._asked_at is not None else self._probe_at
        return min([self._table_due_at, answer_by, probe_at, *(ended.poke_at for ended in self._ended.values())])

    def _note_end(self, pid: int, now: float) -> None:
        watched = self._watched.pop(pid, None)
        if watched is not None:
            self._ended[watched.name] = _Ended(pid, max(now, watched.seen_at + RESTART_INTERVAL_S))

    def _is_awaited(self, name: str, ended: _Ended) -> bool:
        process = self._table.get(name)
        return process is not None and process.pid in (0, ended.pid) and process.state not in _FINAL_STATES

    def _poke(self, now: float) -> bool:
        """Counts the pokes that are due; returns whether there are any."""
        due = [name for name, ended in self._ended.items() if ended.poke_at <= now]
        for name in due:
            ended = self._ended[name]
            ended.pokes += 1
            ended.poke_at = now + ended.pause_s
            ended.pause_s *= 2
            if ended.pokes == POKES:
                del self._ended[name]
        return bool(due)

    def _turn_to(self, broker: SupervisedProcess | None, now: float) -> None:
        if broker != self._broker:
            self._broker = broker
            self._heard_at = None
            self._restart_probing(now)

    def _restart_probing(self, probe_at: float) -> None:
        self._probe_at = probe_at
        self._asked_at = None
        self._failures = 0

    def _judge_broker(self, broker: SupervisedProcess, now: float) -> list[Action]:
        if self._asked_at is None:
            if now < self._probe_at:
                return []
        elif now < self._asked_at + PROBE_PATIENCE_S:
            return []
        else:
            self._failures += 1
        self._asked_at = now
        if not self._is_frozen(broker.pid):
            return [ProbeBroker(broker.pid)]
        self._failures = 0
        heard_at = self._watched[broker.pid].seen_at if self._heard_at is None else self._heard_at
        return [KillProcess("broker_killed", broker.name, broker.pid, now - heard_at), ProbeBroker(broker.pid)]

    def _is_frozen(self, pid: int) -> bool:
        match self._state_of(pid):
            case "T":
                return self._failures >= STOPPED_PROBES
            case "t":  # a debugger has stopped it
                return False
            case _:
                return self._failures >= SILENT_PROBES and self._heard_at is not None

    def _judge_unknown_workers(self, known_pids: set[int], now: float) -> list[Action]:
        unknown = [each for each in self._table.values() if _runs(each, WORKER) and each.pid not in known_pids]
        stopped = [each for each in unknown if self._state_of(each.pid) == "T"]
        self._stopped_since = {each.pid: self._stopped_since.get(each.pid, now) for each in stopped}
        return [
            KillProcess("worker_killed", each.name, each.pid, now - self._stopped_since[each.pid])
            for each in stopped
            if now - self._stopped_since[each.pid] > UNKNOWN_WORKER_S
        ]


def _runs(process: SupervisedProcess, group: str) -> bool:
    return process.group == group and process.state == ProcessStates.RUNNING
