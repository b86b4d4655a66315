"""The watchdog's decisions: which process to kill, and when to wake supervisord. Knows no socket, clock or process.

Two things are beyond supervisord. It calls a process running that is frozen; and it looks for ended ones once a second,
and starts them anew a second later, unless something wakes it. Asking for its table of processes is what wakes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from supervisor.states import ProcessStates

BROKER = "broker"  # groups of supervisord.conf: of whatever else runs under the same supervisord, nothing is killed
WORKER = "worker"
PROBE_INTERVAL_S = 1.0
PROBE_PATIENCE_S = 3.0
STOPPED_PROBES = 2  # a broker that stands still for five seconds lives on, and one that takes as long to start
SILENT_PROBES = 3  # one that is not stopped may be starved by a busy machine, which its death would not help
UNKNOWN_WORKER_S = 15.0  # the broker itself kills a frozen worker that it knows, and does so sooner
RESTART_INTERVAL_S = 1.0  # a process that ends at once must not spin: for it, supervisord's own pace will do
FIRST_POKE_S = 0.01
POKES = 8  # each waits twice as long as the one before; then supervisord has looked by itself
SURVEY_DELAY_S = 0.1  # of a burst of events, one is answered

_FINAL_STATES = (ProcessStates.STOPPED, ProcessStates.FATAL, ProcessStates.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Process:
    """A row of supervisord's table."""

    name: str  # with its group, `worker:worker-0`
    group: str
    pid: int  # 0: there is none
    state: int  # supervisor.states.ProcessStates


@dataclass(frozen=True, slots=True)
class Survey:
    """Ask supervisord for its table, which also wakes it; the table comes back as `on_table`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the broker of this pid for its figures, on a connection of its own; they come back as `on_answer`."""

    pid: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell when this process ends, as `on_end`."""

    pid: int


@dataclass(frozen=True, slots=True)
class Unwatch:
    """This process is no longer supervisord's."""

    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End this process, if supervisord still says that it runs under this pid, and log the event."""

    event: str
    name: str
    pid: int
    silent_s: float


Action: TypeAlias = Survey | Probe | Watch | Unwatch | Kill


@dataclass(frozen=True, slots=True)
class _Watched:
    """A process that is there, by its pid."""

    name: str
    seen_at: float


@dataclass(slots=True)
class _Ended:
    """A process that is to be back soon, by its name."""

    pid: int
    poke_at: float
    pause_s: float = FIRST_POKE_S
    pokes: int = 0


class WatchdogCore:
    """One supervisord's processes, and the broker's voice.

    Invariants: a process is killed only if supervisord's last table calls it running; the broker only if its own pid
    has answered before, or if the kernel says that it is stopped (whoever asks at the wrong address must do no harm).

    Args:
        state_of: the kernel's letter for the state of a process.
    """

    def __init__(self, state_of: Callable[[int], str]) -> None:
        self._state_of = state_of
        self._table: dict[str, Process] = {}
        self._watched: dict[int, _Watched] = {}
        self._ended: dict[str, _Ended] = {}
        self._survey_at = -inf
        self._ticked_at = inf
        self._broker: Process | None = None  # while it runs
        self._heard_at: float | None = None  # the last answer of this very broker
        self._probe_at = inf
        self._asked_at: float | None = None
        self._failures = 0
        self._stopped_since: dict[int, float] = {}  # workers that the broker does not know

    def on_event(self, now: float) -> list[Action]:
        """An event of supervisord, whatever it is: its table may have changed."""
        self._survey_at = min(self._survey_at, now + SURVEY_DELAY_S)
        return []

    def on_table(self, table: Iterable[Process], now: float) -> list[Action]:
        """All processes of supervisord."""
        self._table = {process.name: process for process in table}
        names = {process.pid: process.name for process in self._table.values() if process.pid}
        gone = sorted(self._watched.keys() - names)
        new = sorted(names.keys() - self._watched.keys() - {ended.pid for ended in self._ended.values()})
        for pid in gone:  # its end shows in the table first
            self._note_end(pid, now)
        for pid in new:
            self._watched[pid] = _Watched(names[pid], now)
        self._ended = {name: ended for name, ended in self._ended.items() if self._is_awaited(name, ended)}
        self._turn_to(next((each for each in self._table.values() if _runs(each, BROKER)), None), now)
        return [*map(Unwatch, gone), *map(Watch, new)]

    def on_end(self, pid: int, now: float) -> list[Action]:
        """A watched process ended."""
        self._note_end(pid, now)
        if self._broker is not None and self._broker.pid == pid:
            self._turn_to(None, now)
        return [Unwatch(pid)]

    def on_answer(self, broker_pid: int | None, worker_pids: Iterable[int], now: float) -> list[Action]:
        """The broker's figures; the pid is None where they could not be read, which is a sign of life all the same."""
        self._asked_at = None
        self._failures = 0
        self._probe_at = now + PROBE_INTERVAL_S
        if self._broker is None or broker_pid not in (None, self._broker.pid):
            return []
        self._heard_at = now
        return [] if broker_pid is None else self._judge_unknown_workers(set(worker_pids), now)

    def on_refusal(self, now: float) -> None:
        """Our key was refused: from now on silence proves nothing, until somebody answers again."""
        self._heard_at = None
        self._listen_anew(now + PROBE_INTERVAL_S)

    def on_tick(self, now: float) -> list[Action]:
        """What is due. To be called after all answers that are there were heard, and at least once a second."""
        if now - self._ticked_at > PROBE_PATIENCE_S / 2:  # this process itself stood still: nobody's silence counts
            self._listen_anew(now)
        self._ticked_at = now
        actions: list[Action] = []
        if self._poke(now) or self._survey_at <= now:
            self._survey_at = inf
            actions.append(Survey())
        if self._broker is not None:
            actions += self._judge_broker(self._broker, now)
        return actions

    def next_check(self) -> float:
        """When `on_tick` has something to do."""
        answer_by = inf if self._asked_at is None else self._asked_at + PROBE_PATIENCE_S
        probe_at = inf if self._broker is None or self._asked_at is not None else self._probe_at
        return min([self._survey_at, answer_by, probe_at, *(ended.poke_at for ended in self._ended.values())])

    def _note_end(self, pid: int, now: float) -> None:
        watched = self._watched.pop(pid, None)
        if watched is not None:
            self._ended[watched.name] = _Ended(pid, max(now, watched.seen_at + RESTART_INTERVAL_S))

    def _is_awaited(self, name: str, ended: _Ended) -> bool:
        process = self._table.get(name)
        return process is not None and process.pid in (0, ended.pid) and process.state not in _FINAL_STATES

    def _poke(self, now: float) -> bool:
        """Whether somebody is to be back and may need a push."""
        due = [name for name, ended in self._ended.items() if ended.poke_at <= now]
        for name in due:
            ended = self._ended[name]
            ended.pokes += 1
            ended.poke_at = now + ended.pause_s
            ended.pause_s *= 2
            if ended.pokes == POKES:
                del self._ended[name]
        return bool(due)

    def _turn_to(self, broker: Process | None, now: float) -> None:
        if broker != self._broker:
            self._broker = broker
            self._heard_at = None
            self._listen_anew(now)

    def _listen_anew(self, probe_at: float) -> None:
        self._probe_at = probe_at
        self._asked_at = None
        self._failures = 0

    def _judge_broker(self, broker: Process, now: float) -> list[Action]:
        if self._asked_at is None:
            if now < self._probe_at:
                return []
        elif now < self._asked_at + PROBE_PATIENCE_S:
            return []
        else:
            self._failures += 1
        self._asked_at = now
        if not self._is_frozen(broker.pid):
            return [Probe(broker.pid)]
        self._failures = 0
        heard_at = self._watched[broker.pid].seen_at if self._heard_at is None else self._heard_at
        return [Kill("broker_killed", broker.name, broker.pid, now - heard_at), Probe(broker.pid)]

    def _is_frozen(self, pid: int) -> bool:
        match self._state_of(pid):
            case "T":
                return self._failures >= STOPPED_PROBES
            case "t":  # somebody looks at it with a debugger
                return False
            case _:
                return self._failures >= SILENT_PROBES and self._heard_at is not None

    def _judge_unknown_workers(self, known_pids: set[int], now: float) -> list[Action]:
        unknown = [each for each in self._table.values() if _runs(each, WORKER) and each.pid not in known_pids]
        stopped = [each for each in unknown if self._state_of(each.pid) == "T"]
        self._stopped_since = {each.pid: self._stopped_since.get(each.pid, now) for each in stopped}
        return [
            Kill("worker_killed", each.name, each.pid, now - self._stopped_since[each.pid])
            for each in stopped
            if now - self._stopped_since[each.pid] > UNKNOWN_WORKER_S
        ]


def _runs(process: Process, group: str) -> bool:
    return process.group == group and process.state == ProcessStates.RUNNING
