"""How the pool works at present: compares each stats snapshot with the one before. Knows no socket, clock or screen.

The broker counts from its start, and from zero again after a restart. A person wants to know the state now. So each
snapshot becomes the increase since the one before.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from racepool.protocol.stats import Distribution, Event, PoolStats

WINDOW_S = 10.0
SLOT_S = 2.0  # the time of one bar of a sparkline
MAX_SLOTS = 600
MAX_EVENTS = 200
MAX_SEEN = 1_000


@dataclass(frozen=True, slots=True)
class Increase:
    """The increase between two snapshots: of answered tasks, and of each bucket's durations."""

    since: float
    at: float
    answered: int
    waits: Distribution
    runs: Distribution


@dataclass(slots=True)
class Slot:
    """SLOT_S seconds of the past, of which the answered tasks cover `seconds`.

    `queue_depth` and `in_flight` are the largest values in that time.
    """

    number: int
    answered: int = 0
    seconds: float = 0.0
    queue_depth: int = 0
    in_flight: int = 0

    def throughput(self) -> float | None:
        """Tasks a second; None for the first snapshot, which has no other before it."""
        return self.answered / self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles over WINDOW_S, in milliseconds; None if there was no task."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    count: int = 0


class PoolTrend:
    """Everything that `top` has seen of a pool.

    Attributes:
        stats: the broker's last stats; None before its first answer.
        silent_since: when the broker failed to answer in time; None while it answers.
        heard_at: when it answered last.
        events: the broker's latest events, and ours: the broker restarted, or is back.
        restarts: of each worker: those that the broker remembers, and those that `top` has seen.
    """

    def __init__(self, now: float) -> None:
        self.stats: PoolStats | None = None
        self.silent_since: float | None = None
        self.heard_at = now
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.restarts: Counter[str] = Counter()
        self._seen: dict[Event, None] = {}
        self._seen_at: dict[str, float] = {}  # workers
        self._increases: deque[Increase] = deque()
        self._slots: deque[Slot] = deque(maxlen=MAX_SLOTS)

    def on_stats(self, stats: PoolStats, now: float, wall: datetime) -> None:
        """The broker answered; `wall` is the wall-clock time of `now`."""
        before = self.stats
        slot = self._slot(now)
        if before is not None:
            increase = _increase(before, stats, self.heard_at, now)
            self._increases.append(increase)
            slot.answered += increase.answered
            slot.seconds += increase.at - increase.since
            self._tell_return(before, stats, now, wall)
        while self._increases and self._increases[0].at <= now - WINDOW_S:
            self._increases.popleft()
        slot.queue_depth = max(slot.queue_depth, stats.queue_depth)
        slot.in_flight = max(slot.in_flight, stats.in_flight)
        self._remember(stats.recent_events)
        self._seen_at |= {worker.name: now for worker in stats.workers}
        self.stats, self.heard_at, self.silent_since = stats, now, None

    def on_silence(self, now: float) -> None:
        """The broker did not answer in time."""
        if self.silent_since is None:
            self.silent_since = now

    def throughput(self) -> float | None:
        """Tasks answered a second, over WINDOW_S."""
        seconds = sum(increase.at - increase.since for increase in self._increases)
        return sum(increase.answered for increase in self._increases) / seconds if seconds else None

    def queue_wait(self) -> Latency:
        """How long tasks waited that were assigned within WINDOW_S."""
        return _latency([increase.waits for increase in self._increases])

    def run(self) -> Latency:
        """How long tasks ran that were answered within WINDOW_S."""
        return _latency([increase.runs for increase in self._increases])

    def missing(self) -> dict[str, float]:
        """Workers that were there before and are expected back: name -> the instant at which it was last seen."""
        if self.stats is None:
            return {}
        present = {worker.name for worker in self.stats.workers}
        gone = {name: at for name, at in self._seen_at.items() if name not in present}
        count = max(self.stats.expected_workers - self.stats.total_workers, 0)
        return dict(sorted(gone.items(), key=lambda item: -item[1])[:count])

    def bars(self, value: Callable[[Slot], float | None], count: int, now: float) -> list[float | None]:
        """A value for each of the last slots, the latest last; None if the broker did not answer in it."""
        last = int(now // SLOT_S)
        known = {slot.number: value(slot) for slot in self._slots}
        return [known.get(number) for number in range(last - count + 1, last + 1)]

    def _slot(self, now: float) -> Slot:
        number = int(now // SLOT_S)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(Slot(number))
        return self._slots[-1]

    def _tell_return(self, before: PoolStats, after: PoolStats, now: float, wall: datetime) -> None:
        silent_s = now - self.heard_at
        if before.broker.epoch != after.broker.epoch:
            pids = {worker.name: worker.pid for worker in before.workers}
            self.restarts.update(
                worker.name for worker in after.workers if pids.get(worker.name, worker.pid) != worker.pid
            )
            reason = (
                f"pid {before.broker.pid} -> {after.broker.pid}, up {timedelta(seconds=int(after.broker.uptime_s))}"
            )
            self.events.append(_event("broker_restarted", wall, reason))
        elif self.silent_since is not None:
            self.events.append(_event("broker_back", wall, f"silent for {silent_s:.1f} s"))

    def _remember(self, events: Sequence[Event]) -> None:
        for event in events:
            if event not in self._seen:
                self._seen[event] = None
                self.events.append(event)
                if event.event == "worker_restarted" and event.worker:
                    self.restarts[event.worker] += 1
        while len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]


def _event(name: str, at: datetime, reason: str) -> Event:
    return Event(at=at, event=name, worker=None, task_id=None, reason=reason)


def _answered(stats: PoolStats) -> int:
    return stats.counters.completed + stats.counters.failed


def _increase(before: PoolStats, after: PoolStats, since: float, at: float) -> Increase:
    is_same = before.broker.epoch == after.broker.epoch
    return Increase(
        since,
        at,
        _answered(after) - (_answered(before) if is_same else 0),
        after.queue_wait_ms.since(before.queue_wait_ms) if is_same else after.queue_wait_ms,
        after.run_ms.since(before.run_ms) if is_same else after.run_ms,
    )


def _latency(added: Sequence[Distribution]) -> Latency:
    bounds = {tuple(bound for bound, _ in each.buckets) for each in added}
    if len(bounds) != 1:
        return Latency()  # no increase yet, or brokers of two versions, whose buckets differ
    counts = [sum(each) for each in zip(*([count for _, count in each.buckets] for each in added), strict=True)]
    longest = max((each.max for each in added if each.max is not None), default=None)
    whole = Distribution.of(list(zip(*bounds, counts, strict=True)), longest, sum(each.sum for each in added))
    return Latency(whole.p50, whole.p90, whole.p99, whole.count)
