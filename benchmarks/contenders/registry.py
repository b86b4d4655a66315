"""Every contender by its key: how to open it, what it needs, and its configuration."""

import importlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.measures import Submit
from racepool.protocol.extras import remedy

Opener: TypeAlias = Callable[[int], AbstractAsyncContextManager[Submit]]

OURS: Final = "racepool"
NODE_FOLDER: Final = Path(__file__).parents[1] / "node"
NODE_REMEDY: Final = "npm install --prefix benchmarks/node"


@dataclass(frozen=True)
class Contender:
    """A pool under test.

    Attributes:
        opens: `module:function` in this package; called with the number of workers, it gives an asynchronous context
            manager whose value submits a race.
        distribution: what pip installs; None where Python brings it.
        setup: how it is set up, for the report.
    """

    key: str
    title: str
    setup: str
    opens: str = ""
    distribution: str | None = None
    programs: tuple[str, ...] = ()

    def opener(self) -> Opener:
        """The function that opens the pool. To get it imports the contender's library."""
        module, _, function = self.opens.partition(":")
        opener: Opener = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)
        return opener

    def absence(self) -> str | None:
        """Why the contender cannot run here, with the remedy; None if it can."""
        missing = [program for program in self.programs if shutil.which(program) is None]
        if missing:
            return f"needs the program {missing[0]}"
        if self.key == "piscina":
            return None if (NODE_FOLDER / "node_modules" / "piscina").is_dir() else f"needs `{NODE_REMEDY}`"
        return None if self.version() else f"needs `{remedy('peers')}`"

    def version(self) -> str:
        """The versions of its packages; empty if they are not installed."""
        if self.key == "piscina":
            piscina, zod = (_read(NODE_FOLDER / "node_modules" / name / "package.json") for name in ("piscina", "zod"))
            return f"{piscina['version']} with zod {zod['version']}"
        try:
            return version(self.distribution) if self.distribution else "with Python"
        except PackageNotFoundError:
            return ""


_ALL: Final = (
    Contender(
        OURS,
        "racepool",
        "`local_pool`: broker, workers, supervisord and its watchdog, all with their defaults",
        opens="racepool:opened",
        distribution="racepool",
    ),
    Contender("ppe", "ProcessPoolExecutor", "as Python makes it (fork)", opens="executors:process_pool_executor"),
    Contender("loky", "loky", "its ProcessPoolExecutor (loky)", opens="executors:loky", distribution="loky"),
    Contender("pebble", "pebble", "ProcessPool (fork)", opens="executors:pebble", distribution="pebble"),
    Contender(
        "mpire", "mpire", "WorkerPool (fork), `apply_async` with callbacks", opens="mpire:opened", distribution="mpire"
    ),
    Contender(
        "proxy",
        "zmq.proxy",
        "the limit of the hop: zmq.proxy between minimal workers and a minimal client made of our codec and transform; "
        "no heartbeats, leases, retries or limits",
        opens="proxy:opened",
        distribution="pyzmq",
    ),
    Contender(
        "ipyparallel",
        "ipyparallel",
        "Cluster with a load-balanced view; two tasks at an engine at a time (hwm), so that one is there when one ends",
        opens="ipyparallel:opened",
        distribution="ipyparallel",
    ),
    Contender(
        "dask",
        "dask.distributed",
        "LocalCluster of processes, one thread each, in a thread of the caller; an asynchronous Client on its loop",
        opens="dask:opened",
        distribution="distributed",
    ),
    Contender(
        "celery",
        "Celery",
        "prefork, redis on a Unix socket as broker and for results, pickle, prefetch of 4; no events, gossip, mingle; "
        "one thread of the caller publishes and one collects, so that its loop does not",
        opens="celery:opened",
        distribution="celery",
        programs=("redis-server",),
    ),
    Contender(
        "ray",
        "Ray",
        "a local cluster with a CPU for each worker, tasks awaited as object references; no dashboard",
        opens="ray:opened",
        distribution="ray",
    ),
    Contender(
        "piscina",
        "piscina",
        "threads of one Node process, the transform ported to JavaScript, each race validated by zod",
        programs=("node",),
    ),
)
CONTENDERS: Final = {contender.key: contender for contender in _ALL}


def _read(package: Path) -> dict[str, str]:
    content: dict[str, str] = json.loads(package.read_bytes())
    return content


def contender(key: str) -> Contender:
    """The contender with this key."""
    return CONTENDERS[key]
