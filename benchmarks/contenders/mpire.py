"""mpire's WorkerPool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mpire import WorkerPool

from benchmarks.contenders.task import transform
from benchmarks.loads import Race
from benchmarks.measures import Submit
from racepool.races.transformed_race import TransformedRace


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Opens a WorkerPool. It calls callbacks in its own threads."""
    loop = asyncio.get_running_loop()
    with WorkerPool(workers) as pool:

        def submit(race: Race) -> "asyncio.Future[TransformedRace]":
            future: asyncio.Future[TransformedRace] = loop.create_future()

            def resolve(result: TransformedRace) -> None:
                loop.call_soon_threadsafe(future.set_result, result)

            def fail(error: BaseException) -> None:
                loop.call_soon_threadsafe(future.set_exception, error)

            pool.apply_async(transform, args=(race,), callback=resolve, error_callback=fail)
            return future

        yield submit
