"""dask.distributed on one machine."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from distributed import Client, LocalCluster

from benchmarks.contenders.task import transform
from benchmarks.measures import Submit


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Opens a cluster whose scheduler has a thread of its own: in the caller's loop it would delay the loop."""
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.ERROR
    ) as cluster:
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            yield lambda race: client.submit(transform, race, pure=False)
