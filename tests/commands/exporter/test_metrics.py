import copy
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from racepool.commands.exporter.collector import PoolCollector
from racepool.commands.exporter.dead_view import DeadView
from racepool.commands.exporter.metrics import families
from racepool.protocol.errors import BrokerUnavailableError
from racepool.protocol.stats import FailedStart, PoolStats
from tests.commands.exporter.building import NOON, distribution, event, pool_stats, worker
from tests.running import ROOT

FULL = pool_stats(
    workers=[worker(state="busy", task_id="ab" * 16, busy_for_s=1.5, tasks_completed=4, tasks_failed=1)],
    oldest_queued_s=2.5,
    recent_events=[event(task_id="cd" * 16)],
    failed_starts=[FailedStart(worker="worker-1", reason="no module", age_s=0.5)],
    queue_wait_ms=distribution(1, 2, 3, 4, total_ms=500.0),
    run_ms=distribution(1, 1, 1, 1, total_ms=50.0),
    crash_detection_ms=distribution(0, 1, 0, 0, total_ms=5.0),
)
Place = tuple[str | int, ...]
PERCENTILES = {
    (name, field)
    for name in ("queue_wait_ms", "run_ms", "crash_detection_ms")
    for field in ("p50", "p90", "p99", "count")  # the last of the buckets is the count
}
ENDLESS = {("workers", 0, "task_id"), ("recent_events", 0, "worker"), ("recent_events", 0, "task_id")}
ENDLESS |= {("failed_starts", 0, name) for name in ("worker", "reason", "age_s")}  # their number is told


def text_of(stats: PoolStats | None) -> str:
    """The text of a scrape with these stats; None = no broker answers."""

    def ask() -> PoolStats:
        if stats is None:
            raise BrokerUnavailableError("nobody there")
        return stats

    registry = CollectorRegistry()
    registry.register(PoolCollector(ask, None))
    return re.sub(r"(?m)^.*racepool_ask_seconds.*\n", "", generate_latest(registry).decode())


def samples(text: str) -> dict[str, float]:
    """The samples by name and labels, as `name{label=value}`."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def leaves(value: object, place: Place = ()) -> Iterator[Place]:
    """The path of each single value; a distribution's buckets count as one."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, (*place, name))
    elif isinstance(value, list) and place[-1] != "buckets":
        assert value, f"{place} has no example"
        yield from leaves(value[0], (*place, 0))
    else:
        yield place


def another(value: object) -> object:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 3
        case "busy":
            return "draining"
        case str():
            return value + "x"
        case datetime():
            return value + timedelta(hours=1)
        case list():
            return [(bound, count + 1) for bound, count in value]
        case _:
            raise AssertionError(f"no example of another {value!r}")


def with_another(place: Place) -> PoolStats:
    facts: dict[str, Any] = copy.deepcopy(FULL.model_dump())
    inner: Any = facts
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = another(inner[place[-1]])
    return PoolStats.model_validate(facts)


def test_every_field_of_the_figures_is_told_but_percentiles_and_what_would_make_endless_labels() -> None:
    dumped = FULL.model_dump()
    fields = list(leaves(dumped))

    assert set(dumped) == set(PoolStats.model_fields)
    assert len(fields) > 60
    assert {place for place in fields if text_of(with_another(place)) == text_of(FULL)} == PERCENTILES | ENDLESS


def test_figures_are_told_in_base_units() -> None:
    told = samples(text_of(FULL))

    assert told["racepool_up"] == 1
    assert told["racepool_oldest_queued_seconds"] == 2.5
    assert told["racepool_queue_wait_seconds_sum"] == 0.5
    assert told["racepool_queue_wait_seconds_count"] == 10
    buckets = [told[f"racepool_queue_wait_seconds_bucket{{le={bound}}}"] for bound in ("0.001", "0.01", "0.1", "+Inf")]
    assert buckets == [1, 3, 6, 10]
    assert told["racepool_queue_wait_max_seconds"] == 0.0125
    assert told["racepool_worker_start_time_seconds{worker=worker-0}"] == NOON.timestamp()
    assert told["racepool_worker_tasks_total{outcome=failed}{worker=worker-0}"] == 1
    assert told["racepool_last_event_timestamp_seconds{event=worker_lost}{reason=process_exit}"] == NOON.timestamp()
    assert told["racepool_build_info{protocol_version=1}{version=0.1.0}"] == 1


def test_states_add_up_to_the_workers() -> None:
    workers = [worker("a", state="busy"), worker("b", state="draining"), worker("c")]

    told = samples(text_of(pool_stats(workers=workers)))

    assert {name: told[f"racepool_workers{{state={name}}}"] for name in ("idle", "busy", "draining")} == {
        "idle": 1, "busy": 1, "draining": 1
    }  # fmt: skip
    assert told["racepool_ready_workers"] == 3
    assert told["racepool_worker_state{state=draining}{worker=b}"] == 1
    assert told["racepool_worker_state{state=idle}{worker=b}"] == 0


def test_of_two_workers_of_one_name_the_later_is_told() -> None:
    earlier, later = worker(tasks_completed=9), worker(tasks_completed=2, started_at=NOON + timedelta(seconds=1))

    told = text_of(pool_stats(workers=[later, earlier]))

    assert len(re.findall(r"^racepool_worker_tasks_total\{.*completed", told, re.MULTILINE)) == 1
    assert samples(told)["racepool_worker_tasks_total{outcome=completed}{worker=worker-0}"] == 2


def test_unknown_memory_of_a_worker_is_no_sample() -> None:
    told = samples(text_of(pool_stats(workers=[worker("a"), worker("b", rss_bytes=None)])))

    assert told["racepool_worker_resident_memory_bytes{worker=a}"] == 1_000
    assert "racepool_worker_resident_memory_bytes{worker=b}" not in told


def test_broker_that_is_away_is_told_and_nothing_else_is_made_up() -> None:
    assert samples(text_of(None)) == {"racepool_up": 0}


def test_dead_tasks_of_this_host_are_counted_and_no_other_process_is_taken_for_the_broker(run_dir: Any) -> None:  # noqa: ANN401  # a path
    (run_dir / "dead").mkdir()
    (run_dir / "dead" / f"{'ab' * 16}.dead").write_bytes(b"rubbish")
    registry = CollectorRegistry()
    registry.register(PoolCollector(lambda: pool_stats(broker={"pid": 1}), DeadView(run_dir)))

    told = samples(generate_latest(registry).decode())

    assert (told["racepool_dead_tasks"], told["racepool_dead_tasks_unreadable"]) == (0, 1)
    assert not [
        name for name in told if name.startswith("racepool_broker_process")
    ]  # that pid belongs to another container


@pytest.mark.parametrize("name", [family.name for family in families(FULL)])
def test_every_metric_stands_in_the_document(name: str) -> None:
    document = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")

    named = re.findall(r"`(racepool_\w+)", document.partition("## Metrics")[2].partition("\n## ")[0])

    assert {name, f"{name}_total", f"{name}_info"} & set(named)
