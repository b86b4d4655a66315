"""Fixtures: a run directory for each test, a broker that the test plays, and pools that end with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from racepool import ZmqPool
from racepool.protocol.settings import Settings
from tests.client.fake_broker import FakeBroker, OnSubmit, echo


@pytest.fixture
def endpoint(run_dir: Path) -> str:
    return f"ipc://{run_dir}/frontend.ipc"


@pytest.fixture
def start_broker(endpoint: str) -> Iterator[Callable[..., FakeBroker]]:
    """Starts a broker at `endpoint`; a test may start several, one after the other."""
    started: list[FakeBroker] = []

    def start(on_submit: OnSubmit = echo) -> FakeBroker:
        started.append(FakeBroker(endpoint, on_submit))
        return started[-1]

    yield start
    for broker in started:
        broker.close()


@pytest.fixture
def broker(start_broker: Callable[..., FakeBroker]) -> FakeBroker:
    return start_broker()


@pytest.fixture
def make_pool(run_dir: Path) -> Iterator[Callable[..., ZmqPool]]:
    """Makes a pool with these settings. The end of the test cancels all that it still holds."""
    made: list[ZmqPool] = []

    def make(**settings: object) -> ZmqPool:
        quick: dict[str, Any] = {"heartbeat_interval": 0.05, "liveness": 1.0, "connect_timeout": 5.0}
        made.append(ZmqPool.of(Settings.load(**(quick | {"dir": run_dir} | settings))))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def pool(make_pool: Callable[..., ZmqPool]) -> ZmqPool:
    return make_pool()
