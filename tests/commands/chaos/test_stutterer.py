"""The crash lab's stutterer with a fake broker: a real worker, except that it repeats its results."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from racepool.protocol.messages import Assign, Heartbeat, Ready, Result
from tests.running import environment
from tests.worker.fake_broker import FakeBroker

ABANDONED = 3
WaitUntil = Callable[..., None]


@pytest.fixture
def stutterer(run_dir: Path, broker: FakeBroker, wait_until: WaitUntil) -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "racepool.commands.chaos.stutterer", "--name", "stutterer-4"],
        env=environment(run_dir, transform="transforms:scripted", heartbeat_interval=0.1, liveness=1.5),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: len(broker.of(Heartbeat)) > 0)
    yield child
    child.kill()
    child.communicate()


def told(task: Assign, results: list[Result]) -> int:
    return sum((result.lease, result.task_id) == (task.lease, task.task_id) for result in results)


def test_each_result_is_said_twice_and_again_at_the_next_task(
    stutterer: "subprocess.Popen[bytes]", broker: FakeBroker, wait_until: WaitUntil, race: Callable[..., dict[str, Any]]
) -> None:
    first = broker.assign(race())
    wait_until(lambda: told(first, broker.of(Result)) == 2)
    second = broker.assign(race())
    wait_until(lambda: told(second, broker.of(Result)) == 2)

    results = broker.of(Result)
    assert [told(task, results) for task in (first, second)] == [3, 2]
    assert [result.lease for result in results] == [first.lease] * 3 + [second.lease] * 2
    assert results[0] == results[1] == results[2]
    assert {ready.name for ready in broker.of(Ready)} == {"stutterer-4"}
    assert stutterer.poll() is None


def test_it_ends_with_whoever_holds_its_standard_input(stutterer: "subprocess.Popen[bytes]") -> None:
    assert stutterer.stdin is not None
    stutterer.stdin.close()

    assert stutterer.wait(10) == ABANDONED
