import pytest
from pydantic import ValidationError

from racepool.protocol.stats import Counters, Distribution, PoolStats

EMPTY = Distribution(p50=None, p90=None, p99=None, max=None, count=0, sum=0, buckets=[(1.0, 0), (None, 0)])


def figures() -> PoolStats:
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


def test_figures_survive_json() -> None:
    assert PoolStats.model_validate_json(figures().model_dump_json()) == figures()


def test_figures_of_a_newer_broker_can_be_read() -> None:
    newer = figures().model_dump(mode="json") | {"mood": "good"}

    assert PoolStats.model_validate(newer) == figures()


def test_counter_of_another_name_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="complete"):
        Counters.model_validate({"complete": 1})


def test_figures_are_of_one_moment() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(figures(), "clients", 2)  # noqa: B010  # a type checker would say so too
