"""A run directory of the test's own, and a broker that the test plays for one worker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worker.fake_broker import FakeBroker


@pytest.fixture
def start_broker(run_dir: Path) -> Iterator[Callable[[], FakeBroker]]:
    """Starts a broker in `run_dir`; a test may start several, one after the other."""
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
