"""A real pool: `racepool up` in a process of its own, through pytest-xprocess, in a private run directory."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xprocess import ProcessStarter, XProcess

from client import ZmqPool
from tests.running import RACEPOOL, Running, StartPool, environment


@pytest.fixture(scope="module")
def run_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))  # ipc paths must be short
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def start_pool(xprocess: XProcess) -> Iterator[StartPool]:
    """Starts pools; all end with the module."""
    started: list[tuple[str, ZmqPool, Path]] = []

    def start(**settings: object) -> Running:
        directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
        name = f"racepool-{directory.name}"
        env = environment(directory, **settings)

        class Starter(ProcessStarter):  # type: ignore[misc]  # xprocess has no types
            pattern = "spawned: 'worker-0'"
            args = (RACEPOOL, "up")
            timeout = 30
            terminate_on_interrupt = True

        Starter.env = env
        pid, _ = xprocess.ensure(name, Starter)
        pool = ZmqPool(f"ipc://{directory}/frontend.ipc")
        started.append((name, pool, directory))
        pool.wait_for_workers()
        return Running(directory, env, pool, pid)

    yield start
    for name, pool, directory in started:
        pool.shutdown(cancel_futures=True)
        xprocess.getinfo(name).terminate(kill_proc_tree=False)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def scripted(start_pool: StartPool) -> Running:
    """A pool of three whose workers do what the race's name says (see tests/transforms.py)."""
    return start_pool(transform="transforms:scripted")
