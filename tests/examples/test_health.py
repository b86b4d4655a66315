"""How the example service judges its own health."""

import pytest

from examples.service.health import judged
from examples.service.tally import Tally
from racepool import PoolStats
from racepool.protocol.stats import BrokerStats, Counters, Distribution

TICK_S = 15.0
FRESH_S = 2.0
NONE_YET = Distribution(p50=None, p90=None, p99=None, max=None, count=0, sum=0.0, buckets=[])
WHOLE = PoolStats(
    total_workers=3, active_workers=0, idle_workers=3, expected_workers=3, degraded=False, queue_depth=0,
    held_by_clients=0, in_flight=0, oldest_queued_s=None, backlog_limit=100, workers=[], counters=Counters(),
    queue_wait_ms=NONE_YET, run_ms=NONE_YET, crash_detection_ms=NONE_YET, clients=1, recent_events=[], failed_starts=[],
    broker=BrokerStats(pid=1, epoch="e", version="v", protocol_version=1, uptime_s=1.0, rss_bytes=1),
)  # fmt: skip


def test_whole_pool_and_fresh_tick_are_ok() -> None:
    health = judged(WHOLE, FRESH_S, TICK_S, Tally(stored=7))

    assert (health.status, health.reasons) == ("ok", [])
    assert (health.workers, health.expected_workers, health.queue_depth, health.tally.stored) == (3, 3, 0, 7)


@pytest.mark.parametrize(
    ("figures", "status", "reason"),
    [
        ({"total_workers": 2, "degraded": True}, "degraded", "only 2 of 3 workers are there"),
        ({"oldest_queued_s": 16.0}, "degraded", "a task has waited for 16 s: the workers cannot keep up"),
        ({"total_workers": 0, "degraded": True}, "unable", "the pool has no worker"),
    ],
)
def test_figures_that_are_not_well_give_the_reason(figures: dict[str, object], status: str, reason: str) -> None:
    health = judged(WHOLE.model_copy(update=figures), FRESH_S, TICK_S, Tally())

    assert (health.status, health.reasons) == (status, [reason])


@pytest.mark.parametrize(("age_s", "status"), [(None, "unable"), (45.1, "unable"), (44.9, "ok")])
def test_scheduler_that_missed_three_ticks_is_standing_still(age_s: float | None, status: str) -> None:
    assert judged(WHOLE, age_s, TICK_S, Tally()).status == status


def test_all_that_is_fatal_is_told_at_once() -> None:
    health = judged("no broker", None, TICK_S, Tally())

    assert (health.status, health.reasons) == ("unable", ["the scheduler does not tick", "no broker"])
