"""`map` and `as_completed` on a real pool: through crashes, against a small backlog, and in any loop."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from racepool import BacklogFullError, TransformError
from tests.running import ROOT, Race, Running, StartPool, WaitUntil

pytestmark = pytest.mark.system
BACKLOG_LIMIT = 3
SAMPLES = sorted((ROOT / "samples").glob("*.json"))


@pytest.mark.usefixtures("at_rest")
def test_map_gives_every_result_in_order_whoever_is_killed(
    scripted: Running, race: Race, wait_until: WaitUntil
) -> None:
    before = scripted.stats()
    names = [f"race-{index}" for index in range(400)]
    results: Iterator[Any] = scripted.pool.map(race("sleep:0.02", name) for name in names)
    got = [next(results)["id"] for _ in range(50)]

    os.kill(scripted.stats().workers[0].pid, signal.SIGKILL)
    wait_until(lambda: scripted.stats().counters.worker_crashes > before.counters.worker_crashes)
    got += [next(results)["id"] for _ in range(50)]
    os.kill(before.broker.pid, signal.SIGKILL)
    got += [result["id"] for result in results]

    assert got == names
    assert scripted.stats().broker.epoch != before.broker.epoch


@pytest.mark.usefixtures("at_rest")
def test_end_of_a_map_takes_back_what_it_submitted(scripted: Running, race: Race, wait_until: WaitUntil) -> None:
    before = scripted.stats().counters
    races = [race("raise:no such horse"), *(race("sleep:0.05", f"race-{index}") for index in range(500))]

    with pytest.raises(TransformError, match="no such horse"):
        list(scripted.pool.map(races))

    wait_until(scripted.is_at_rest)
    after = scripted.stats().counters
    submitted = after.submitted - before.submitted
    assert submitted < 200  # of 501: the first one may be slow
    assert after.completed - before.completed + after.cancelled - before.cancelled + 1 == submitted


def test_small_backlog_is_waited_for_by_all_who_iterate(start_pool: StartPool, race: Race) -> None:
    small = start_pool(transform="transforms:scripted", backlog_limit=BACKLOG_LIMIT)
    names = [f"race-{index}" for index in range(150)]
    clients = [small.client() for _ in range(3)]

    def collect(which: int) -> list[str]:
        found: Any = clients[which].as_completed(race("sleep:0.005", name) for name in names)
        return [future.result()["id"] for _, future in sorted(found, key=lambda one: one[0])]

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(collect, range(3))) == [names] * 3
    assert small.stats().counters.rejected > 0
    flood = [clients[0].exec(race("sleep:0.005", name)) for name in names]  # no client submits it again
    assert any(isinstance(future.exception(20), BacklogFullError) for future in flood)
    for client in clients:
        client.shutdown()
    submitted, accounted = small.books()
    assert submitted == accounted


def test_asynchronous_input_is_worked_off_as_it_comes(start_pool: StartPool) -> None:
    real = start_pool(workers=1)
    bodies = [path.read_bytes() for path in SAMPLES] * 5

    async def poll() -> AsyncIterator[bytes]:
        for body in bodies:
            yield body
            await asyncio.sleep(0.001)

    async def collect() -> list[str]:
        return [result.race_id async for result in real.pool.map_async(poll())]

    expected = [real.pool.exec(body).result(10).race_id for body in bodies]
    assert asyncio.run(asyncio.wait_for(collect(), 20)) == expected
