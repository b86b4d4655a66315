"""How long it took until a fault was noticed, and until the pool had recovered: injections compared with the logs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from racepool.commands.chaos.injection import Hit, Injection
from racepool.commands.chaos.program_logs import ENDED_BY_WATCHDOG, EXITED, SPAWNED, LogEntry, ProgramLogs

SLACK_S: Final = 0.02  # instants of two processes, one of them rounded to milliseconds
PATIENCE_S: Final = 5.0
LET_GO_S: Final = 0.5
PAUSE_S: Final = 0.1
SILENCE_FACTOR: Final = 1.5  # of the liveness, for a process that used CPU at first
EXIT_NOTICED_S: Final = 1.0  # usually a few milliseconds; longer on an overloaded machine
LISTENER_S: Final = 15.0
UNKNOWN_S: Final = 20.0  # the watchdog's patience with a frozen worker that no broker knows, and the time to ask
SOCKETS_S: Final = 5.0
NOISE_S: Final = 2.0
NOT_NOTICED: Final = "-"
LISTENER: Final = "event listener"
OWN_TIMER: Final = "own timer"


@dataclass(frozen=True, slots=True)
class Noticed:
    """One hit, and how it was noticed.

    Attributes:
        how: what noticed it, or the reason in the log; "-" if nothing did or had to.
        detection_s: from the hit until it was noticed; None if it was not.
        recovery_s: from the hit (or its end, if it has one) until the process is back; None if it was not lost.
        is_clouded: broker or supervisord was absent in that time. The absence is subtracted; the times are less sure.
    """

    kind: str
    how: str
    detection_s: float | None
    recovery_s: float | None
    is_clouded: bool = False


Span = tuple[float, float]
BROKERLESS_KINDS: Final = ("broker-", "pool-freeze", "supervisord-kill", "sockets-removed")
"""Beginnings of the names of kinds that leave no broker to notice anything."""


def measure(injections: Sequence[Injection], logs: ProgramLogs) -> list[Noticed]:
    """The outcome of each hit, in the order of the injections."""
    return [noticed for injection in injections for noticed in _Look(injections, logs).at(injection)]


def outages(injections: Iterable[Injection], logs: ProgramLogs, *names: str) -> list[Span]:
    """The spans in which the broker or supervisord could not act: faults whose kind begins with one of `names`."""
    found = []
    for injection in injections:
        if any(injection.name.startswith(name) for name in names) and not injection.missed:
            started = next((each.at for each in logs.of("broker_started") if each.at > injection.at), injection.at)
            is_passing = injection.name in ("broker-freeze", "pool-freeze", "supervisord-freeze")
            found.append((injection.at, (injection.until or injection.at) if is_passing else started))
    return found


def blind_spans(injections: Iterable[Injection], logs: ProgramLogs) -> list[Span]:
    """The spans in which no broker could notice anything: during a fault, or a pause on a busy machine.

    After a pause the broker gives every peer the full liveness again. The log does not tell the pause's length: PAUSE_S
    is its minimum.
    """
    pauses = [(entry.at - PAUSE_S, entry.at) for entry in logs.of("broker_paused")]
    return outages(injections, logs, *BROKERLESS_KINDS) + pauses


def detection_bound_s(noticed: Noticed, liveness_s: float) -> float | None:
    """The seconds within which this must be noticed; None if nothing is promised."""
    match noticed.kind:
        case "worker-freeze-for-good" if noticed.how == LISTENER:
            return UNKNOWN_S + NOISE_S
        case "worker-freeze" | "worker-freeze-calm" | "worker-freeze-for-good":
            return SILENCE_FACTOR * liveness_s + NOISE_S
        case "hang" | "broker-kill-alarm" if noticed.how == OWN_TIMER:
            return liveness_s + EXIT_NOTICED_S
        case "worker-kill" | "workers-kill-all" | "import-exit" | "import-abort" | "stutter":
            return EXIT_NOTICED_S
        case "poison" | "poison-exit" | "fork-then-kill" | "child-then-kill":
            return EXIT_NOTICED_S
        case "hang" | "alarm-handler" | "alarm-ignored" | "alarm-blocked" | "child-then-hang":
            return EXIT_NOTICED_S
        case "broker-freeze-for-good":
            return LISTENER_S + NOISE_S
        case "sockets-removed":
            return SOCKETS_S + NOISE_S
        case _:
            return None


class _Look:
    def __init__(self, injections: Sequence[Injection], logs: ProgramLogs) -> None:
        self._logs = logs
        self._blind = blind_spans(injections, logs)
        self._idle = self._blind + outages(injections, logs, "supervisord-freeze")

    def at(self, injection: Injection) -> Iterator[Noticed]:
        """The outcomes of one injection; None in a field where it has no such time."""
        if injection.missed:
            return
        match injection.name:
            case "broker-kill" | "broker-freeze-for-good":
                yield self._lost_broker(injection)
            case "sockets-removed":
                yield self._removed_sockets(injection)
            case "watchdog-kill":
                yield self._lost_watchdog(injection)
            case "broker-freeze" | "pool-freeze":
                paused = self._first("broker_paused", injection.until or injection.at)
                took_s = paused and injection.until and max(0.0, paused.at - injection.until)
                yield Noticed(injection.name, "own pause" if paused else NOT_NOTICED, took_s or None, None)
            case "supervisord-kill":
                since = injection.until or injection.at
                yield Noticed(injection.name, "the lab", None, self._back(since))
            case "client-kill" | "client-freeze":
                gone = self._first("task_abandoned", injection.at, (injection.until or injection.at) + PATIENCE_S)
                took_s = None if gone is None else gone.at - injection.at
                yield Noticed(injection.name, "silence" if gone else NOT_NOTICED, took_s, None)
            case "garbage" | "client-slow" | "supervisord-freeze" | "raise" | "fork-return" | "child-left":
                yield Noticed(injection.name, NOT_NOTICED, None, None)
            case _:
                yield from (self._hit_worker(injection, hit) for hit in injection.hits)

    def _lost_broker(self, injection: Injection) -> Noticed:
        hit = injection.hits[0]
        if hit.died_at is not None:
            return Noticed(injection.name, LISTENER, hit.died_at - hit.at, self._back(hit.at))
        exited = self._first(EXITED, hit.at, hit.at + PATIENCE_S, "broker")
        how = "supervisord" if exited else NOT_NOTICED
        detection_s = max(0.0, exited.at - hit.at) if exited else None
        return Noticed(injection.name, how, detection_s, self._back(hit.at))

    def _lost_watchdog(self, injection: Injection) -> Noticed:
        exited = self._first(EXITED, injection.at, injection.at + PATIENCE_S, "watchdog")
        spawned = exited and self._first(SPAWNED, exited.at, worker="watchdog")
        how = "supervisord" if exited else NOT_NOTICED
        detection_s = max(0.0, exited.at - injection.at) if exited else None
        recovery_s = spawned.at - injection.at if spawned else None
        return Noticed(injection.name, how, detection_s, recovery_s)

    def _removed_sockets(self, injection: Injection) -> Noticed:
        failed = self._first("broker_failed", injection.at, injection.at + 2 * PATIENCE_S)
        how = "the broker" if failed else NOT_NOTICED
        detection_s = failed.at - injection.at if failed else None
        return Noticed(injection.name, how, detection_s, self._back(injection.at))

    def _hit_worker(self, injection: Injection, hit: Hit) -> Noticed:
        kind = injection.fault.kind
        by = hit.until + LET_GO_S if hit.until else hit.at + injection.fault.lasts_s + kind.rest_s
        events = ("worker_lost",) if kind.costs_worker else ("worker_lost", "worker_silent")
        known = (each for each in self._logs.of("worker_ready") if each.pid == hit.pid and each.at <= hit.at)
        lost = next(
            (each for each in self._logs.of(*events) if each.pid == hit.pid and hit.at - SLACK_S <= each.at <= by),
            None,
        )
        if lost is None or next(known, None) is None:  # the broker did not know the worker yet
            return self._unknown_worker(injection, hit)
        since = hit.at + (injection.fault.lasts_s if kind.hangs else 0.0)
        detection_s, is_clouded = _elapsed(since, lost.at, self._blind)
        how = "it uses CPU" if lost.event == "worker_silent" else str(lost.fields.get("reason"))
        if kind.hangs and self._first("broker_started", hit.at, lost.at):
            how = OWN_TIMER  # a new broker does not know when the task began
        if lost.event == "worker_silent":
            return Noticed(kind.name, how, detection_s, None, is_clouded)
        recovery_s, is_late = self._recovery(max(hit.until or since, since), lost)
        return Noticed(kind.name, how, detection_s, recovery_s, is_clouded or is_late)

    def _unknown_worker(self, injection: Injection, hit: Hit) -> Noticed:
        """For a worker that no broker knew: only the watchdog may notice it, if it stays frozen."""
        ended = next((each for each in self._logs.of(ENDED_BY_WATCHDOG) if each.pid == hit.pid), None)
        if ended is None:
            return Noticed(injection.name, NOT_NOTICED, None, None)
        detection_s, is_clouded = _elapsed(hit.at, ended.at, self._blind)
        recovery_s, is_late = self._recovery(hit.at, ended)
        return Noticed(injection.name, LISTENER, detection_s, recovery_s, is_clouded or is_late)

    def _recovery(self, since: float, lost: LogEntry) -> tuple[float | None, bool]:
        """The time until a worker of this name is ready: the same process after SIGCONT, or another one."""
        for ready in self._logs.of("worker_ready"):
            if ready.worker == lost.worker and ready.at >= max(since, lost.at) - SLACK_S:
                return _elapsed(since, ready.at, self._idle)
        return None, False

    def _back(self, since: float) -> float | None:
        """The time until a worker is ready with the next broker."""
        started = self._first("broker_started", since)
        ready = started and self._first("worker_ready", started.at)
        return ready.at - since if ready else None

    def _first(self, event: str, since: float, until: float = float("inf"), worker: str = "") -> LogEntry | None:
        return next(
            (
                each
                for each in self._logs.of(event)
                if since - SLACK_S <= each.at <= until and (not worker or each.worker == worker)
            ),
            None,
        )


def _elapsed(since: float, until: float, absent: Iterable[Span]) -> tuple[float, bool]:
    """The time between two instants without the absences in it, and whether there were any."""
    gone_s = 0.0
    reached = since
    for begin, end in sorted(absent):
        overlap_s = min(end, until) - max(begin, reached)
        if overlap_s > 0:
            gone_s += overlap_s
            reached = min(end, until)
    return max(0.0, until - since - gone_s), gone_s > 0
