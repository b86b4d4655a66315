"""The main job as a whole: real races through a supervised pool, in every form and from every kind of caller."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from racepool import InvalidRaceError, RaceData, TransformedRace, TransformError
from racepool.protocol.stats import PoolStats
from tests.running import ROOT, SHARED, Race, Running, StartPool, WaitUntil

pytestmark = pytest.mark.system
POLLED_AT = datetime(2025, 7, 17, 0, 12, tzinfo=UTC)
SAMPLES = sorted((ROOT / "samples").glob("*.json"))


@pytest.fixture(scope="module")
def real(start_pool: StartPool) -> Running:
    """A pool of three that runs the money-flow transform."""
    return start_pool()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_form_of_a_race_gives_the_same_result(real: Running, sample: Path) -> None:
    body = sample.read_bytes()
    forms = [body, body.decode(), bytearray(body), memoryview(body), json.loads(body), RaceData.parse(body)]

    results = [real.pool.exec(form, polled_at=POLLED_AT).result(10) for form in forms]

    assert all(result == results[0] for result in results)
    assert isinstance(results[0], TransformedRace)
    assert results[0].metrics.money_flow_record_count > 0


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_the_real_capture_gives_the_worked_figures(real: Running) -> None:
    body = (SHARED / "nztab-event-awapuni-2025-07-17.json").read_bytes()

    result = real.pool.exec(body).result(10)

    tickford = next(record for record in result.money_flow_records if record.win_pool_amount == 164725)
    assert (tickford.hold_percentage, tickford.place_pool_amount) == (18, 70623)
    assert len(result.money_flow_records) == 8
    assert result.race_pools is not None
    assert (result.race_pools.win_pool_total, result.race_pools.place_pool_total) == (915138, 392351)


def test_increments_of_a_chain_add_up_to_the_last_amount(real: Running) -> None:
    previous: TransformedRace | None = None
    increments, amounts = [], []
    for index, hold in enumerate((5, 0, 6)):
        polled_at = POLLED_AT + timedelta(seconds=15 * index)
        previous = real.pool.exec(_race_with_hold(hold), polled_at=polled_at, previous=previous).result(10)
        (record,) = previous.money_flow_records
        amounts.append(record.win_pool_amount)
        increments.append(record.incremental_win_amount)

    assert amounts == [50000, 0, 60000]
    assert increments == [50000, -50000, 60000]


def test_threads_and_loops_share_a_pool(real: Running) -> None:
    body = SAMPLES[0].read_bytes()
    expected = real.pool.exec(body, polled_at=POLLED_AT).result(10)

    async def burst() -> list[TransformedRace]:
        return await asyncio.gather(*(real.pool.exec(body, polled_at=POLLED_AT) for _ in range(20)))

    with ThreadPoolExecutor(8) as threads:
        in_threads = [threads.submit(lambda: real.pool.exec(body, polled_at=POLLED_AT).result(20)) for _ in range(40)]
        in_loops = [threads.submit(lambda: asyncio.run(burst())) for _ in range(3)]

        assert all(future.result(30) == expected for future in in_threads)
        assert all(result == expected for future in in_loops for result in future.result(30))


def test_an_exec_right_after_the_wait_succeeds(start_pool: StartPool) -> None:
    running = start_pool(workers=1)  # start_pool waits for the workers

    assert running.stats().idle_workers == 1
    assert running.pool.exec(SAMPLES[0].read_bytes()).result(5).race_id


def test_bad_races_fail_alone_and_name_the_place(real: Running) -> None:
    broken = _race_with_hold(5) | {"entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": "1"}]}
    good, not_json, bad = (real.pool.exec(race) for race in (_race_with_hold(5), b'{"id": ', broken))

    assert good.result(10).race_id == "r"
    with pytest.raises(InvalidRaceError, match="JSON"):
        not_json.result(10)
    with pytest.raises(InvalidRaceError, match=r"race r\).*entrants\.0\.runnerNumber") as caught:
        bad.result(10)
    assert [error.path for error in caught.value.errors] == ["entrants.0.runnerNumber"]


def test_an_exception_goes_straight_to_its_caller(scripted: Running, race: Race) -> None:
    before = scripted.stats().counters

    with pytest.raises(TransformError, match="RuntimeError: no such horse") as caught:
        scripted.exec(race("raise:no such horse")).result(10)

    assert (caught.value.type, caught.value.message) == ("RuntimeError", "no such horse")
    assert "transforms.py" in caught.value.remote_traceback
    after = scripted.stats().counters
    assert (after.failed - before.failed, after.requeued, after.worker_crashes) == (1, 0, 0)


def test_a_queued_task_is_cancelled_and_a_running_one_discarded(
    scripted: Running, race: Race, tmp_path: Path, wait_until: WaitUntil
) -> None:
    gate, order = tmp_path / "gate", tmp_path / "order"
    wait_until(lambda: scripted.stats().in_flight == 0)  # a task that was cancelled is counted when it ends
    before = scripted.stats().counters.cancelled
    running = [scripted.exec(race(f"wait-for:{gate}")) for _ in range(3)]
    queued = scripted.exec(race(f"log-to:{order}"))
    wait_until(lambda: scripted.stats().in_flight == 3)

    assert running[0].cancel()
    assert queued.cancel()
    wait_until(lambda: scripted.stats().counters.cancelled == before + 1)  # the broker knows both clients
    gate.touch()

    assert [future.result(10)["id"] for future in running[1:]] == ["race-1", "race-1"]
    wait_until(lambda: scripted.stats().counters.cancelled == before + 2)
    assert not order.exists()


def test_cancel_with_kill_ends_the_worker(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    before = scripted.stats().counters
    hung = scripted.exec(race("spin"))
    wait_until(lambda: scripted.stats().in_flight == 1)
    busy = next(worker for worker in scripted.stats().workers if worker.task_id == hung.task_id)

    assert hung.cancel(kill=True)

    wait_until(lambda: scripted.pids().get(busy.name, busy.pid) != busy.pid)
    after = scripted.stats().counters
    assert (after.cancelled - before.cancelled, after.requeued - before.requeued) == (1, 0)
    assert scripted.stats().in_flight == 0


def test_stats_show_every_field_and_their_sum_holds_throughout(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    wait_until(lambda: all(worker.rss_bytes for worker in scripted.stats().workers))  # their first heartbeats
    sums: list[tuple[int, int]] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            sums.append(scripted.books())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    futures = [scripted.exec(race("sleep:0.01" if index % 10 else "raise")) for index in range(600)]
    seen: list[PoolStats] = []

    def is_at_work() -> bool:
        """The pool when each worker has a task; a worker that returns a recalled task has none for a moment."""
        seen.append(scripted.stats())
        return seen[-1].held_by_clients > 0 and all(worker.task_id for worker in seen[-1].workers)

    wait_until(is_at_work)
    busy = seen[-1]
    for future in futures:
        future.exception(30)
    is_over.set()
    watcher.join()

    assert all(submitted == total for submitted, total in [*sums, scripted.books()])
    assert len(sums) > 20
    assert (busy.active_workers, busy.idle_workers) == (3, 0)
    assert 3 <= busy.in_flight <= 6, "a task for each worker, and a second at most"
    assert busy.queue_depth > 100
    assert {worker.state for worker in busy.workers} == {"busy"}
    assert all(worker.busy_for_s is not None for worker in busy.workers)


def _race_with_hold(hold: float) -> dict[str, Any]:
    return {
        "id": "r",
        "name": "Chain",
        "status": "open",
        "race_date_nz": "2025-07-17",
        "start_time_nz": "12:15",
        "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
        "pools": {"winPool": 10000, "placePool": 5000},
        "money_tracker": {"entrants": [{"entrant_id": "a", "hold_percentage": hold, "bet_percentage": hold}]},
    }
