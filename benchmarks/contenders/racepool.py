"""racepool itself, as `local_pool` makes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.loads import POLLED_AT
from benchmarks.measures import Submit
from racepool import local_pool


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Opens a private pool."""
    async with local_pool(workers) as pool:
        yield lambda race: pool.exec(race, polled_at=POLLED_AT)
