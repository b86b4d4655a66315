"""Decides from numbers alone whether the service can serve."""

from typing import Literal

from pydantic import BaseModel

from examples.service.tally import Tally
from racepool import PoolStats

MISSED_TICKS = 3


class Health(BaseModel):
    """The answer of /health; `unable` is sent as 503.

    Attributes:
        status: `ok`; `degraded`: it serves, but somebody should look; `unable`: it does not serve.
        reasons: why the status is not `ok`.
        last_tick_age_s: seconds since the scheduler's last tick.
        tally: what happened to the polls.
    """

    status: Literal["ok", "degraded", "unable"]
    reasons: list[str]
    last_tick_age_s: float | None
    workers: int | None = None
    expected_workers: int | None = None
    queue_depth: int | None = None
    oldest_queued_s: float | None = None
    tally: Tally


def judged(stats: PoolStats | str, last_tick_age_s: float | None, interval_s: float, tally: Tally) -> Health:
    """The verdict.

    Args:
        stats: the pool's stats, or the reason why there are none.
        last_tick_age_s: seconds since the scheduler's last tick; None before the first tick.
        interval_s: seconds from tick to tick.
        tally: what happened to the polls. It is shown but does not change the verdict: when the tote is away, a restart
            of this service does not help.
    """
    fatal: list[str] = []
    minor: list[str] = []
    if last_tick_age_s is None or last_tick_age_s > MISSED_TICKS * interval_s:
        fatal.append("the scheduler does not tick")
    if isinstance(stats, str):
        return Health(status="unable", reasons=[*fatal, stats], last_tick_age_s=last_tick_age_s, tally=tally)
    if stats.total_workers == 0:
        fatal.append("the pool has no worker")
    elif stats.degraded:
        minor.append(f"only {stats.total_workers} of {stats.expected_workers} workers are there")
    if (stats.oldest_queued_s or 0.0) > interval_s:
        minor.append(f"a task has waited for {stats.oldest_queued_s:.0f} s: the workers cannot keep up")
    return Health(
        status="unable" if fatal else "degraded" if minor else "ok",
        reasons=fatal + minor,
        last_tick_age_s=last_tick_age_s,
        workers=stats.total_workers,
        expected_workers=stats.expected_workers,
        queue_depth=stats.queue_depth,
        oldest_queued_s=stats.oldest_queued_s,
        tally=tally,
    )
