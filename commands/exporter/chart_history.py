"""The last minutes, one point a second, for the page's charts. Pure: stats and time in, points out."""

from collections import deque
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import Any

from racepool.protocol.stats import PoolStats

POINTS = 900
WINDOW_S = 5.0  # for rates and percentiles: over one second they would jump too much
UNSUCCESSFUL = ("failed", "crashed", "timed_out")


@dataclass(frozen=True, slots=True)
class Point:
    """One moment. All but `at` are None while no broker answers. Rates and percentiles need two moments."""

    at: float  # seconds since 1970
    ready_workers: int | None = None
    active_workers: int | None = None
    queue_depth: int | None = None
    in_flight: int | None = None
    completed_per_s: float | None = None
    unsuccessful_per_s: float | None = None
    wait_p50_ms: float | None = None
    wait_p99_ms: float | None = None
    run_p50_ms: float | None = None
    run_p99_ms: float | None = None
    broker_bytes: int | None = None
    workers_bytes: int | None = None


COLUMNS = tuple(field.name for field in fields(Point))


class ChartHistory:
    """The last `size` points. Counters are compared only within one epoch of the broker."""

    def __init__(self, size: int = POINTS) -> None:
        self.points: deque[Point] = deque(maxlen=size)
        self._recent: deque[tuple[float, PoolStats]] = deque()

    def record(self, at: float, stats: PoolStats | None) -> Point:
        """Adds and returns the point of the moment `at`; `stats` is None if no broker answered."""
        point = Point(at) if stats is None else self._point(at, stats)
        if stats is None:
            self._recent.clear()
        self.points.append(point)
        return point

    def columns(self) -> dict[str, list[Any]]:
        """All points as columns, by field name, the oldest first."""
        rows: Iterable[tuple[Any, ...]] = zip(*map(astuple, self.points), strict=True)
        return dict(zip(COLUMNS, map(list, rows), strict=True)) if self.points else {name: [] for name in COLUMNS}

    def _point(self, at: float, stats: PoolStats) -> Point:
        recent = self._recent
        if recent and (recent[-1][1].broker.epoch != stats.broker.epoch or recent[-1][0] >= at):
            recent.clear()
        while len(recent) > 1 and recent[1][0] <= at - WINDOW_S:
            recent.popleft()
        then_at, then = recent[0] if recent else (at, stats)
        recent.append((at, stats))
        span_s = at - then_at
        wait, run = stats.queue_wait_ms.since(then.queue_wait_ms), stats.run_ms.since(then.run_ms)
        return Point(
            at=at,
            ready_workers=stats.total_workers,
            active_workers=stats.active_workers,
            queue_depth=stats.queue_depth,
            in_flight=stats.in_flight,
            completed_per_s=_rate(then, stats, ("completed",), span_s),
            unsuccessful_per_s=_rate(then, stats, UNSUCCESSFUL, span_s),
            wait_p50_ms=wait.p50,
            wait_p99_ms=wait.p99,
            run_p50_ms=run.p50,
            run_p99_ms=run.p99,
            broker_bytes=stats.broker.rss_bytes,
            workers_bytes=_sum([worker.rss_bytes for worker in stats.workers]),
        )


def _sum(parts: list[int | None]) -> int | None:
    """None if a part is unknown: without it, the sum would seem to fall when a worker has just started."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _rate(then: PoolStats, now: PoolStats, names: Iterable[str], span_s: float) -> float | None:
    if not span_s:
        return None
    more: int = sum(getattr(now.counters, name) - getattr(then.counters, name) for name in names)
    return round(more / span_s, 3)
