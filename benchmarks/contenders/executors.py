"""The pools that are executors: ProcessPoolExecutor, loky's and pebble's."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import asynccontextmanager

from benchmarks.contenders.task import transform
from benchmarks.measures import Submit


@asynccontextmanager
async def process_pool_executor(workers: int) -> AsyncIterator[Submit]:
    """Opens Python's own ProcessPoolExecutor."""
    with ProcessPoolExecutor(workers) as executor:
        yield _submit_to(executor)


@asynccontextmanager
async def loky(workers: int) -> AsyncIterator[Submit]:
    """Opens an executor of loky. Not the one that loky shares between callers: that one may be resized."""
    import loky as library  # noqa: PLC0415  # of the extra

    with library.ProcessPoolExecutor(workers) as executor:
        yield _submit_to(executor)


@asynccontextmanager
async def pebble(workers: int) -> AsyncIterator[Submit]:
    """Opens a pool of pebble, without a timeout for tasks."""
    import pebble as library  # noqa: PLC0415  # of the extra

    with library.ProcessPool(max_workers=workers) as pool:
        yield lambda race: asyncio.wrap_future(pool.submit(transform, None, race))


def _submit_to(executor: Executor) -> Submit:
    loop = asyncio.get_running_loop()
    return lambda race: loop.run_in_executor(executor, transform, race)
