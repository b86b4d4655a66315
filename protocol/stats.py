"""The broker's stats as monitoring sees them: JSON on the stats socket, `PoolStats` in Python."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict

OUTCOMES: Final = ("completed", "failed", "crashed", "cancelled", "timed_out", "abandoned")
"""The counters of ended tasks, by how they ended."""


class _StatsPart(BaseModel):
    model_config = ConfigDict(frozen=True)


class WorkerStats(_StatsPart):
    """One worker. Ages and durations are in seconds. A worker that is `draining` ends after its last task."""

    name: str
    pid: int
    state: Literal["idle", "busy", "draining"]
    task_id: str | None
    busy_for_s: float | None
    tasks_completed: int
    tasks_failed: int
    last_heartbeat_age_s: float
    started_at: datetime
    version: str
    rss_bytes: int | None


class Counters(_StatsPart):
    """Totals of this broker epoch.

    submitted = (queue_depth - held_by_clients) + in_flight + completed + failed + crashed + cancelled + timed_out
    + abandoned, at all times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    crashed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    abandoned: int = 0
    requeued: int = 0
    rejected: int = 0
    worker_crashes: int = 0
    stale_results: int = 0
    bad_frames: int = 0
    dropped: int = 0


class Distribution(_StatsPart):
    """A histogram of durations in milliseconds.

    Attributes:
        p50, p90, p99: see `percentile`; null while `count` is 0.
        max: the longest duration since the broker's start; null while `count` is 0.
        count: how many durations were counted.
        sum: of all of them.
        buckets: for each upper bound, how many durations are not longer. The last bound is null, for infinity.
    """

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    count: int
    sum: float
    buckets: list[tuple[float | None, int]]

    @classmethod
    def of(cls, buckets: Sequence[tuple[float | None, int]], longest: float | None, total: float) -> Self:
        """The distribution of these buckets, with its percentiles.

        Args:
            buckets: (upper bound or None, how many durations are not longer), the shortest bound first.
            longest: an upper limit of all durations; None if there is none.
            total: the sum of all durations.
        """
        count = buckets[-1][1] if buckets else 0
        longest = longest if count else None
        bare = cls(p50=None, p90=None, p99=None, max=longest, count=count, sum=total, buckets=list(buckets))
        parts = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
        return bare.model_copy(update={name: bare.percentile(part) for name, part in parts.items()})

    def percentile(self, part: float) -> float | None:
        """The duration that `part` (0 to 1) of all durations do not exceed; None if there are no durations.

        It is interpolated between the bounds of its bucket. No bucket reaches beyond `max`, so neither does the
        result.
        """
        rank = part * self.count
        lower, below = 0.0, 0
        for bound, count in self.buckets:
            if count >= rank and count > below:
                ends = [end for end in (bound, self.max) if end is not None]
                upper = max(lower, min(ends, default=lower))
                return round(lower + (upper - lower) * (rank - below) / (count - below), 3)
            lower, below = bound or 0.0, count
        return None

    def since(self, before: "Distribution") -> "Distribution":
        """The durations that were counted after `before`, an earlier state of the same histogram.

        Nobody knows the longest of them alone, so `max` is that of all durations.

        Raises:
            ValueError: the two have different bounds.
        """
        if [bound for bound, _ in self.buckets] != [bound for bound, _ in before.buckets]:
            raise ValueError("these are not two states of one histogram: their bounds differ")
        added = [(bound, now - then) for (bound, now), (_, then) in zip(self.buckets, before.buckets, strict=True)]
        return Distribution.of(added, self.max, self.sum - before.sum)


class Event(_StatsPart):
    """One of the last crashes, requeues and restarts."""

    at: datetime
    event: str
    worker: str | None
    task_id: str | None
    reason: str | None


class FailedStart(_StatsPart):
    """A worker that ended because its set-up cannot work; `age_s` is the time since then, in seconds."""

    worker: str
    reason: str
    age_s: float


class BrokerStats(_StatsPart):
    """The broker process."""

    pid: int
    epoch: str
    version: str
    protocol_version: int
    uptime_s: float
    rss_bytes: int


class PoolStats(_StatsPart):
    """What the stats socket answers.

    Attributes:
        active_workers: those that are busy or draining.
        expected_workers: the setting RACEPOOL_WORKERS of the broker.
        degraded: whether fewer workers are there than expected.
        queue_depth: all tasks that wait, in the broker's backlog or held back by their client.
        held_by_clients: the part of `queue_depth` that clients hold back.
        oldest_queued_s: how long the oldest task of the backlog has waited, in seconds; null if the backlog is empty.
        backlog_limit: how many tasks the backlog may hold.
        queue_wait_ms: for each assignment, how long the task had waited until then, in total.
        run_ms: for each result, how long the worker had the task.
        crash_detection_ms: from the last sign of life of a lost worker to the broker's verdict. Nobody knows when the
            process died, so this is an upper limit; it can be too long by one heartbeat interval.
        clients: how many clients have a session.
        failed_starts: workers that cannot start, at most one entry for each name. A worker that becomes ready is taken
            out.
    """

    total_workers: int
    active_workers: int
    idle_workers: int
    expected_workers: int
    degraded: bool
    queue_depth: int
    held_by_clients: int
    in_flight: int
    oldest_queued_s: float | None
    backlog_limit: int
    workers: list[WorkerStats]
    counters: Counters
    queue_wait_ms: Distribution
    run_ms: Distribution
    crash_detection_ms: Distribution
    clients: int
    recent_events: list[Event]
    failed_starts: list[FailedStart]
    broker: BrokerStats
