"""More tasks than the pool can hold are refused with a text or held back in order; a flood delays no other client."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import pytest

from racepool import BacklogFullError, PoolFuture, PoolStats, ZmqPool
from racepool.client.window import WINDOW_UNITS
from tests.running import Blocked, Race, Running, StartClient, StartPool, WaitUntil

pytestmark = pytest.mark.system

BACKLOG_LIMIT = 20
BACKLOG_BYTES = 100_000
PROMPT_S = 1.0  # an idle pool answers within milliseconds
HELD_UP_S = 5.0  # longer than any delay by a busy machine


@pytest.fixture(scope="module")
def few(start_pool: StartPool) -> Running:
    """A pool whose backlog holds few tasks."""
    return start_pool(transform="transforms:scripted", workers=1, backlog_limit=BACKLOG_LIMIT)


@pytest.fixture(scope="module")
def small(start_pool: StartPool) -> Running:
    """A pool whose backlog holds few bytes."""
    return start_pool(transform="transforms:scripted", workers=1, backlog_bytes=BACKLOG_BYTES)


@pytest.fixture(autouse=True)
def nothing_is_left(scripted: Running, few: Running, small: Running, wait_until: WaitUntil) -> Iterator[None]:
    yield
    for running in (scripted, few, small):
        wait_until(running.is_at_rest, 15)
        submitted, accounted = running.books()
        assert submitted == accounted


# --- refused ----------------------------------------------------------------------------------------------------------


def test_broker_that_holds_its_number_of_tasks_refuses_more(few: Running, race: Race, blocked: Blocked) -> None:
    before = few.stats().counters

    with blocked(few):
        futures = [few.exec(race("echo", f"race-{index}")) for index in range(BACKLOG_LIMIT + 30)]
        refused = dict(enumerate(futures[BACKLOG_LIMIT:], start=BACKLOG_LIMIT))
        for index, future in refused.items():
            with pytest.raises(BacklogFullError) as caught:
                future.result(5)
            assert (caught.value.depth, caught.value.limit) == (BACKLOG_LIMIT, BACKLOG_LIMIT)
            for told in (f"task {future.task_id}", f"race race-{index})", "20 of 20", "submit again later", "limit"):
                assert told in str(caught.value)
        stats = few.stats()
        assert (stats.queue_depth, stats.backlog_limit) == (BACKLOG_LIMIT, BACKLOG_LIMIT)

    accepted = [future.result(10)["id"] for future in futures[:BACKLOG_LIMIT]]
    assert accepted == [f"race-{index}" for index in range(BACKLOG_LIMIT)]
    after = few.stats().counters
    assert after.rejected - before.rejected == 30
    assert after.submitted - before.submitted == after.completed - before.completed == 1 + BACKLOG_LIMIT
    assert few.exec(race("echo", "later")).result(5)["id"] == "later"


def test_broker_that_holds_its_bytes_refuses_more(
    small: Running, race: Race, blocked: Blocked, wait_until: WaitUntil
) -> None:
    before = small.stats().counters
    large = {"padding": "x" * 30_000}

    with blocked(small):
        futures = [small.exec(race("echo", f"race-{index}") | large) for index in range(5)]
        for index in (3, 4):
            with pytest.raises(BacklogFullError, match=rf"race race-{index}\).*submit again later") as caught:
                futures[index].result(5)
            assert 90_000 < caught.value.depth < caught.value.limit == BACKLOG_BYTES
        slim = small.exec(race("echo", "slim"))  # this one fits
        wait_until(lambda: small.stats().queue_depth == 4)

    assert [future.result(10)["id"] for future in [*futures[:3], slim]] == ["race-0", "race-1", "race-2", "slim"]
    after = small.stats().counters
    assert after.rejected - before.rejected == 2
    assert after.submitted - before.submitted == after.completed - before.completed == 5


def test_client_that_holds_its_number_of_tasks_refuses_at_once(
    scripted: Running, race: Race, blocked: Blocked, wait_until: WaitUntil
) -> None:
    before = scripted.stats().counters

    with scripted.client(max_in_flight=5) as pool:
        with blocked(scripted):
            futures: list[PoolFuture[Any]] = [pool.exec(race("echo", f"race-{index}")) for index in range(5)]
            wait_until(lambda: scripted.stats().queue_depth == 5)
            asked_at = time.monotonic()
            with pytest.raises(
                BacklogFullError, match=r"this pool holds all it may: 5 of 5 .*RACEPOOL_MAX_IN_FLIGHT"
            ) as caught:
                pool.exec(race("echo", "refused"))
            assert time.monotonic() - asked_at < 2.0  # there is room only after the gate opens
            assert (caught.value.depth, caught.value.limit) == (5, 5)
            futures[0].cancel()  # which makes room
            wait_until(lambda: scripted.stats().counters.cancelled == before.cancelled + 1)
            futures[0] = pool.exec(race("echo", "race-0"))

        assert [future.result(10)["id"] for future in futures] == [f"race-{index}" for index in range(5)]
    after = scripted.stats().counters
    assert (after.submitted - before.submitted, after.rejected - before.rejected) == (3 + 6, 0)


# --- held back --------------------------------------------------------------------------------------------------------


def test_what_a_client_holds_back_is_counted_as_queued_and_keeps_its_order(
    scripted: Running, race: Race, blocked: Blocked, wait_until: WaitUntil
) -> None:
    with blocked(scripted):
        futures = [scripted.exec(race("echo", f"race-{index}")) for index in range(2 * WINDOW_UNITS)]
        wait_until(lambda: scripted.stats().queue_depth == 2 * WINDOW_UNITS)
        stats = scripted.stats()
        assert (stats.in_flight, stats.held_by_clients) == (3, WINDOW_UNITS + 3)
        futures[-1].cancel()  # the client holds it back, so the broker never gets it
        wait_until(lambda: scripted.stats().queue_depth == 2 * WINDOW_UNITS - 1)

    kept = futures[:-1]
    assert [future.result(20)["id"] for future in kept] == [f"race-{index}" for index in range(2 * WINDOW_UNITS - 1)]
    scripted.logged("task_completed", task_id=kept[-1].task_id)
    ours = {future.task_id for future in futures}
    assigned = [entry["task_id"] for entry in scripted.events("task_assigned") if entry["task_id"] in ours]
    first_assigned = list(dict.fromkeys(assigned))  # a prefetched task that was recalled is assigned once more
    assert first_assigned == [future.task_id for future in kept]


# --- trouble of other clients -----------------------------------------------------------------------------------------


def test_killed_clients_backlog_is_gone_within_seconds(
    scripted: Running, race: Race, start_client: StartClient, wait_until: WaitUntil
) -> None:
    before = scripted.stats().counters
    client = start_client(scripted, [race("sleep:0.2", f"race-{index}") for index in range(600)])
    wait_until(lambda: scripted.stats().queue_depth > 500)

    client.kill()
    killed_at = time.monotonic()
    waiting = scripted.exec(race("echo", "behind them all"))  # they would take another 40 s
    answers_s = []
    while not waiting.done():
        asked_at = time.monotonic()
        scripted.stats()
        answers_s.append(time.monotonic() - asked_at)
    assert time.monotonic() - killed_at < 10
    assert waiting.result(0)["id"] == "behind them all"
    assert scripted.stats().queue_depth == 0
    latencies_s = [_latency_s(scripted.pool, race("echo")) for _ in range(20)]
    wait_until(scripted.is_at_rest)

    assert sorted(answers_s)[-3] < PROMPT_S  # a busy machine may delay one
    assert median(latencies_s) < PROMPT_S
    assert max(*answers_s, *latencies_s) < HELD_UP_S
    told = scripted.logged("task_abandoned")
    assert (told["in_flight"], told["queued"] > 100) == (3, True)
    after = scripted.stats().counters
    assert after.abandoned - before.abandoned == told["queued"] + told["in_flight"]


def test_client_that_reads_nothing_holds_nobody_up_and_gets_every_result(
    scripted: Running, race: Race, start_client: StartClient, blocked: Blocked, wait_until: WaitUntil
) -> None:
    size, count = 400_000, 1_000
    baseline_bytes = scripted.stats().broker.rss_bytes
    before = scripted.stats()
    with blocked(scripted):
        client = start_client(scripted, [race(f"large:{size}", f"race-{index}") for index in range(count)])
        wait_until(lambda: scripted.stats().held_by_clients == count - WINDOW_UNITS)
        os.kill(client.pid, signal.SIGSTOP)

    wait_until(lambda: _ended(scripted.stats()) - _ended(before) >= 3 + WINDOW_UNITS)
    peak_bytes, latencies_s = 0, []
    until = time.monotonic() + 3.0  # longer than the liveness, so the broker forgets the client
    while time.monotonic() < until:
        latencies_s.append(_latency_s(scripted.pool, race("echo")))
        peak_bytes = max(peak_bytes, scripted.stats().broker.rss_bytes)
    wait_until(lambda: scripted.stats().clients == 1)
    os.kill(client.pid, signal.SIGCONT)
    output, _ = client.communicate(timeout=30)

    assert json.loads(output) == [size] * count
    assert median(latencies_s) < PROMPT_S
    assert max(latencies_s) < HELD_UP_S
    assert peak_bytes - baseline_bytes < 1.5 * size * WINDOW_UNITS  # all of them would be 400 MB


def _ended(stats: PoolStats) -> int:
    """How many tasks were done, also those whose client had gone."""
    return stats.counters.completed + stats.counters.abandoned


def test_task_behind_a_flood_waits_for_the_floods_window_and_no_more(
    scripted: Running, race: Race, start_client: StartClient, wait_until: WaitUntil
) -> None:
    count = 3_000
    flood = start_client(scripted, [race("sleep:0.004", f"flood-{index}") for index in range(count)])
    wait_until(lambda: scripted.stats().held_by_clients > count / 2)

    singles = []
    for index in range(3):
        singles.append(scripted.exec(race("echo", f"single-{index}")))
        assert singles[-1].result(20)["id"] == f"single-{index}"
    assert scripted.stats().held_by_clients > 0  # they did not wait for the end of the flood
    output, _ = flood.communicate(timeout=60)

    assert json.loads(output) == [f"flood-{index}" for index in range(count)]
    for single in singles:
        assert 0 < _assigned_while_waiting(scripted, single.task_id) <= WINDOW_UNITS


def _assigned_while_waiting(running: Running, task_id: str | None) -> int:
    """How many tasks were assigned while this one was in the backlog."""
    assigned = running.logged("task_assigned", task_id=task_id)
    until = datetime.fromisoformat(assigned["timestamp"])
    since = until - timedelta(milliseconds=assigned["queued_ms"])
    return len(  # a prefetched task that was recalled is assigned once more
        {
            entry["task_id"]
            for entry in running.events("task_assigned")
            if since < datetime.fromisoformat(entry["timestamp"]) < until
        }
    )


def _latency_s(pool: ZmqPool, race: dict[str, Any]) -> float:
    submitted_at = time.monotonic()
    pool.exec(race).result(20)
    return time.monotonic() - submitted_at
