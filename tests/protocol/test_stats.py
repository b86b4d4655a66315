from itertools import accumulate

import pytest
from pydantic import ValidationError

from racepool.protocol.stats import Counters, Distribution, PoolStats

EMPTY = Distribution(p50=None, p90=None, p99=None, max=None, count=0, sum=0, buckets=[(1.0, 0), (None, 0)])


def stats() -> PoolStats:
    return PoolStats.model_validate(
        {
            "total_workers": 1,
            "active_workers": 0,
            "idle_workers": 1,
            "expected_workers": 3,
            "degraded": True,
            "queue_depth": 0,
            "held_by_clients": 0,
            "in_flight": 0,
            "oldest_queued_s": None,
            "backlog_limit": 10,
            "workers": [
                {
                    "name": "worker-0",
                    "pid": 1,
                    "state": "idle",
                    "task_id": None,
                    "busy_for_s": None,
                    "tasks_completed": 0,
                    "tasks_failed": 0,
                    "last_heartbeat_age_s": 0.1,
                    "started_at": "2026-01-31T01:02:03Z",
                    "version": "0.1.0",
                    "rss_bytes": None,
                }
            ],
            "counters": {},
            "queue_wait_ms": EMPTY,
            "run_ms": EMPTY,
            "crash_detection_ms": EMPTY,
            "clients": 0,
            "recent_events": [
                {
                    "at": "2026-01-31T01:02:03Z",
                    "event": "worker_lost",
                    "worker": "w",
                    "task_id": None,
                    "reason": "silence",
                }
            ],
            "failed_starts": [{"worker": "w", "reason": "no such module", "age_s": 0.5}],
            "broker": {
                "pid": 1,
                "epoch": "00",
                "version": "0.1.0",
                "protocol_version": 1,
                "uptime_s": 1.0,
                "rss_bytes": 1,
            },
        }
    )


def test_stats_survive_json() -> None:
    assert PoolStats.model_validate_json(stats().model_dump_json()) == stats()


def test_stats_of_a_newer_broker_can_be_read() -> None:
    newer = stats().model_dump(mode="json") | {"mood": "good"}

    assert PoolStats.model_validate(newer) == stats()


def test_counter_of_another_name_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="complete"):
        Counters.model_validate({"complete": 1})


def test_stats_are_of_one_moment() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(stats(), "clients", 2)  # noqa: B010  # a type checker would say so too


BOUNDS_MS = (1.0, 10.0, 100.0, None)


def counted(*of_buckets: int, longest: float | None = 12.5, total: float = 0.0) -> Distribution:
    """With so many durations in each bucket."""
    return Distribution.of(list(zip(BOUNDS_MS, accumulate(of_buckets), strict=True)), longest, total)


NOTHING = counted(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("part", "distribution", "expected"),
    [
        (0.50, NOTHING, None),
        (0.00, NOTHING, None),
        (0.50, counted(2, 0, 0, 0), 0.5),
        (0.50, counted(0, 10, 0, 0), 5.5),
        (0.50, counted(5, 0, 5, 0), 1.0),
        (0.51, counted(50, 0, 50, 0), 10.05),  # of the bucket of 10 to 12.5
        (1.00, counted(1, 0, 4, 0), 12.5),
        (0.00, counted(0, 4, 0, 0), 1.0),
        (0.50, counted(0, 0, 0, 2, longest=300.0), 200.0),
        (0.99, counted(0, 0, 0, 3), 100.0),  # the longest cannot be shorter: such a broker is broken
        (0.50, counted(0, 0, 0, 3, longest=None), 100.0),
        (0.50, Distribution.of([], None, 0.0), None),
    ],
)
def test_percentile_is_interpolated_in_its_bucket_and_never_beyond_the_longest(
    part: float, distribution: Distribution, expected: float | None
) -> None:
    assert distribution.percentile(part) == expected


def test_distribution_tells_its_percentiles() -> None:
    distribution = counted(0, 100, 0, 0, longest=9.0, total=512.0)

    assert (distribution.p50, distribution.p90, distribution.p99) == (5.0, 8.2, 8.92)
    assert (distribution.max, distribution.count, distribution.sum) == (9.0, 100, 512.0)
    assert distribution.buckets == [(1.0, 0), (10.0, 100), (100.0, 100), (None, 100)]


def test_what_was_added_has_its_own_percentiles() -> None:
    added = counted(9, 10, 0, 0, total=64.0).since(counted(9, 0, 0, 0, total=8.0))

    assert added == counted(0, 10, 0, 0, total=56.0)
    assert added.p50 == 5.5


def test_nothing_added_is_nothing() -> None:
    added = counted(5, 5, 5, 5, total=8.0).since(counted(5, 5, 5, 5, total=8.0))

    assert (added.p50, added.p90, added.p99, added.max, added.count, added.sum) == (None, None, None, None, 0, 0.0)


def test_two_histograms_are_not_subtracted() -> None:
    with pytest.raises(ValueError, match="bounds differ"):
        NOTHING.since(Distribution.of([(2.0, 0), (10.0, 0), (100.0, 0), (None, 0)], None, 0.0))
