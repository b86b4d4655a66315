"""The broker's stats: histograms, the last events, and the snapshot that monitoring gets."""

import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from racepool.broker.actions import Report
from racepool.broker.core import BrokerCore
from racepool.broker.workers import Worker
from racepool.protocol import VERSION
from racepool.protocol.messages import PROTOCOL_VERSION
from racepool.protocol.processes import resident_bytes
from racepool.protocol.stats import BrokerStats, Counters, Distribution, Event, FailedStart, PoolStats, WorkerStats

BOUNDS_MS = tuple(base * 10.0**power for power in range(-1, 5) for base in (1.0, 2.5, 5.0))
RECENT_EVENTS = 100
REMEMBERED = frozenset(
    {
        "worker_lost",
        "worker_killed",
        "worker_restarted",
        "worker_start_failed",
        "task_requeued",
        "task_given_up",
        "task_abandoned",
    }
)
DETECTED = frozenset({"process_exit", "silence", "unreachable", "replaced", "out_of_step"})

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_000  # the end of 9999: a wrong instant from a worker must not break the stats


class Histogram:
    """Counts of durations, in milliseconds, by bucket. Its memory does not grow."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self._sum = 0.0
        self._max = 0.0

    def observe(self, duration_ms: float) -> None:
        """Counts one duration."""
        self._counts[bisect_left(BOUNDS_MS, duration_ms)] += 1
        self._sum += duration_ms
        self._max = max(self._max, duration_ms)

    def distribution(self) -> Distribution:
        """The durations so far."""
        buckets = zip((*BOUNDS_MS, None), accumulate(self._counts), strict=True)
        return Distribution.of(list(buckets), self._max, round(self._sum, 3))


class Statistics:
    """Counts the core's reports, and builds PoolStats.

    Args:
        core: the broker's state.
        clock: the broker's monotonic clock, in seconds.
        wall: seconds since 1970, for the instants of events.
    """

    def __init__(self, core: BrokerCore, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._core = core
        self._clock = clock
        self._wall = wall
        self._started_at = clock()
        self._queue_wait = Histogram()
        self._run = Histogram()
        self._crash_detection = Histogram()
        self._events: deque[Event] = deque(maxlen=RECENT_EVENTS)

    def on_report(self, report: Report) -> None:
        """Counts this report."""
        fields = report.fields
        match report.event:
            case "task_assigned":
                self._queue_wait.observe(float(str(fields["queued_ms"])))
            case "task_completed" | "task_failed":
                self._run.observe(float(str(fields["duration_ms"])))
            case "worker_lost" if fields["reason"] in DETECTED:
                self._crash_detection.observe(float(str(fields["silent_ms"])))
        if report.event in REMEMBERED:
            self._events.append(self._event(report))

    def snapshot(self) -> PoolStats:
        """The stats of this moment."""
        core, now = self._core, self._clock()
        workers = [self._worker(worker, now) for worker in core.roster.workers.values()]
        held = sum(client.held for client in core.clients.by_id.values())
        backlog = core.ledger.backlog
        oldest = backlog.oldest()
        return PoolStats(
            total_workers=len(workers),
            active_workers=sum(worker.state != "idle" for worker in workers),
            idle_workers=core.roster.idle_count,
            expected_workers=core.settings.workers,
            degraded=len(workers) < core.settings.workers,
            queue_depth=backlog.depth + held,
            held_by_clients=held,
            in_flight=core.ledger.in_flight,
            oldest_queued_s=None if oldest is None else round(oldest.waited(now), 3),
            backlog_limit=core.settings.backlog_limit,
            workers=sorted(workers, key=lambda worker: worker.name),
            counters=Counters(**core.counters),
            queue_wait_ms=self._queue_wait.distribution(),
            run_ms=self._run.distribution(),
            crash_detection_ms=self._crash_detection.distribution(),
            clients=len(core.clients.by_id),
            recent_events=list(self._events),
            failed_starts=[
                FailedStart(worker=each.worker, reason=each.reason, age_s=round(now - each.at, 3))
                for each in core.failed_starts.fresh(now)
            ],
            broker=BrokerStats(
                pid=os.getpid(),
                epoch=core.epoch.hex(),
                version=VERSION,
                protocol_version=PROTOCOL_VERSION,
                uptime_s=round(now - self._started_at, 3),
                rss_bytes=resident_bytes(),
            ),
        )

    def _worker(self, worker: Worker, now: float) -> WorkerStats:
        task = worker.task
        return WorkerStats(
            name=worker.name,
            pid=worker.pid,
            state=worker.state,
            task_id=task.id.hex() if task else None,
            busy_for_s=round(now - worker.assigned_at, 3) if task else None,
            tasks_completed=worker.tasks_completed,
            tasks_failed=worker.tasks_failed,
            last_heartbeat_age_s=round(now - worker.last_seen, 3),
            started_at=_UNIX_EPOCH + timedelta(milliseconds=min(worker.started_at_ms, _LATEST_MS)),
            version=worker.version,
            rss_bytes=worker.rss_bytes,
        )

    def _event(self, report: Report) -> Event:
        values = {name: str(report.fields[name]) for name in ("worker", "task_id", "reason") if report.fields.get(name)}
        return Event(
            at=datetime.fromtimestamp(self._wall(), UTC),
            event=report.event,
            worker=values.get("worker"),
            task_id=values.get("task_id"),
            reason=values.get("reason"),
        )
