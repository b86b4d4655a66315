"""A run directory of the test's own, and a broker that the test plays for one worker."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worker.fake_broker import FakeBroker


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Short enough for sockets."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def start_broker(run_dir: Path) -> Iterator[Callable[[], FakeBroker]]:
    """Starts brokers in `run_dir`, one after the other."""
    started: list[FakeBroker] = []

    def start() -> FakeBroker:
        started.append(FakeBroker(run_dir))
        return started[-1]

    yield start
    for broker in started:
        broker.close()


@pytest.fixture
def broker(start_broker: Callable[[], FakeBroker]) -> FakeBroker:
    return start_broker()
