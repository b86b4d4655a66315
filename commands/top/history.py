"""What the broker's figures tell when one snapshot is held against the next. Knows no socket, clock or screen.

The broker counts from its start; what a person asks is how it goes now. So each snapshot is turned into what was added
since the one before, also across the broker's restarts, after which it counts from zero again.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from racepool.protocol.stats import Distribution, Event, PoolStats

WINDOW_S = 10.0
SLOT_S = 2.0  # what one bar of a sparkline stands for
MAX_SLOTS = 600
MAX_EVENTS = 200
MAX_SEEN = 1_000


@dataclass(frozen=True, slots=True)
class Beat:
    """What was added between two snapshots: tasks answered, and the durations of each bucket."""

    since: float
    at: float
    answered: int
    waits: Distribution
    runs: Distribution


@dataclass(slots=True)
class Slot:
    """So many seconds of the past: what was answered in how much of it, and the most that waited or was in flight."""

    number: int
    answered: int = 0
    seconds: float = 0.0
    queue_depth: int = 0
    in_flight: int = 0

    def throughput(self) -> float | None:
        """Tasks a second; None of the very first snapshot, which has none before it."""
        return self.answered / self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of a few seconds, in milliseconds; None where nothing happened."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    count: int = 0


class History:
    """All that was seen of a pool.

    Attributes:
        figures: the last that the broker said, None if it has not spoken yet.
        silent_since: when it should have spoken again; None while it speaks.
        heard_at: when it spoke last.
        events: the last ones, ours among them: that the broker restarted or came back.
        restarts: of each worker, as far as the broker remembers and since we watch.
    """

    def __init__(self, now: float) -> None:
        self.figures: PoolStats | None = None
        self.silent_since: float | None = None
        self.heard_at = now
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.restarts: Counter[str] = Counter()
        self._seen: dict[Event, None] = {}
        self._seen_at: dict[str, float] = {}  # workers
        self._beats: deque[Beat] = deque()
        self._slots: deque[Slot] = deque(maxlen=MAX_SLOTS)

    def on_figures(self, figures: PoolStats, now: float, wall: datetime) -> None:
        """The broker spoke; `wall` is the same instant by the calendar."""
        before = self.figures
        slot = self._slot(now)
        if before is not None:
            beat = _beat(before, figures, self.heard_at, now)
            self._beats.append(beat)
            slot.answered += beat.answered
            slot.seconds += beat.at - beat.since
            self._tell_return(before, figures, now, wall)
        while self._beats and self._beats[0].at <= now - WINDOW_S:
            self._beats.popleft()
        slot.queue_depth = max(slot.queue_depth, figures.queue_depth)
        slot.in_flight = max(slot.in_flight, figures.in_flight)
        self._remember(figures.recent_events)
        self._seen_at |= {worker.name: now for worker in figures.workers}
        self.figures, self.heard_at, self.silent_since = figures, now, None

    def on_silence(self, now: float) -> None:
        """The broker did not answer in time."""
        if self.silent_since is None:
            self.silent_since = now

    def throughput(self) -> float | None:
        """Tasks answered a second, over the last seconds."""
        seconds = sum(beat.at - beat.since for beat in self._beats)
        return sum(beat.answered for beat in self._beats) / seconds if seconds else None

    def queue_wait(self) -> Latency:
        """How long tasks waited, of those that were assigned in the last seconds."""
        return _latency([beat.waits for beat in self._beats])

    def run(self) -> Latency:
        """How long tasks ran, of those that were answered in the last seconds."""
        return _latency([beat.runs for beat in self._beats])

    def missing(self) -> dict[str, float]:
        """Workers that were there and are expected back, with the instant at which each was last seen."""
        if self.figures is None:
            return {}
        present = {worker.name for worker in self.figures.workers}
        gone = {name: at for name, at in self._seen_at.items() if name not in present}
        count = max(self.figures.expected_workers - self.figures.total_workers, 0)
        return dict(sorted(gone.items(), key=lambda item: -item[1])[:count])

    def bars(self, value: Callable[[Slot], float | None], count: int, now: float) -> list[float | None]:
        """A value for each of the last slots, the latest last; None where the broker was not heard."""
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


def _answered(figures: PoolStats) -> int:
    return figures.counters.completed + figures.counters.failed


def _beat(before: PoolStats, after: PoolStats, since: float, at: float) -> Beat:
    is_same = before.broker.epoch == after.broker.epoch
    return Beat(
        since,
        at,
        _answered(after) - (_answered(before) if is_same else 0),
        after.queue_wait_ms.since(before.queue_wait_ms) if is_same else after.queue_wait_ms,
        after.run_ms.since(before.run_ms) if is_same else after.run_ms,
    )


def _latency(added: Sequence[Distribution]) -> Latency:
    bounds = {tuple(bound for bound, _ in each.buckets) for each in added}
    if len(bounds) != 1:
        return Latency()  # no beat yet, or brokers of two versions, whose buckets differ
    counts = [sum(each) for each in zip(*([count for _, count in each.buckets] for each in added), strict=True)]
    longest = max((each.max for each in added if each.max is not None), default=None)
    whole = Distribution.of(list(zip(*bounds, counts, strict=True)), longest, sum(each.sum for each in added))
    return Latency(whole.p50, whole.p90, whole.p99, whole.count)
