"""ipyparallel: a controller and engines in processes of their own."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

import ipyparallel
from traitlets.config import Config

from benchmarks.contenders.task import transform
from benchmarks.measures import Submit

HIGH_WATER_MARK = 2  # tasks at an engine; with 1, the default, it is idle between two tasks


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Opens a cluster with a temporary profile: the user's own profile may have other settings."""
    with TemporaryDirectory(prefix="bench-ipyparallel-") as folder:
        os.environ["IPYTHONDIR"] = folder
        config = Config()
        config.TaskScheduler.hwm = HIGH_WATER_MARK
        cluster = ipyparallel.Cluster(n=workers, config=config, log_level=logging.ERROR, profile_dir=folder)
        async with cluster as client:
            client.wait_for_engines(workers)
            view = client.load_balanced_view()
            yield lambda race: asyncio.wrap_future(view.apply_async(transform, race))
