"""Ray on one machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import ray

from benchmarks.contenders.task import transform
from benchmarks.measures import Submit


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Opens a cluster of one node, which ends with the block."""
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield ray.remote(transform).remote
    finally:
        ray.shutdown()
