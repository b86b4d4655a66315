"""A driver that fails is not mistaken for a slow one, and its error has the end of its log."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.contenders.registry import CONTENDERS, Contender
from benchmarks.lane import Lane, LaneError
from benchmarks.loads import NORMALISED, RAW, result_path
from benchmarks.races import write_loads
from benchmarks.run import Run
from racepool.protocol.extras import remedy
from tests.benchmarks.building import measured

pytestmark = pytest.mark.system


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    write_loads(tmp_path)
    return tmp_path


@pytest.fixture
def lane(loads: Path) -> Iterator[Lane]:
    with Lane(CONTENDERS["ppe"], loads, workers=1) as lane:
        lane.started_s()
        yield lane


def test_driver_gives_every_races_whole_result(lane: Lane, loads: Path) -> None:
    for load in (NORMALISED, RAW):
        for index, result in enumerate(lane.ask("results", load, 0)):
            assert result == json.loads(result_path(loads, load, index).read_bytes())


def test_something_can_be_done_while_a_driver_works(lane: Lane) -> None:
    looks: list[float] = []

    lane.ask("sustained", RAW, 200, meanwhile=lambda: looks.append(lane.tree.memory_bytes()), every_s=0.01)

    assert len(looks) > 1
    assert min(looks) > 1e6


def test_command_that_is_not_understood_is_told_with_the_end_of_the_log(lane: Lane) -> None:
    with pytest.raises(LaneError, match=r"(?s)ProcessPoolExecutor: its driver ended.*KeyError: 'dance'"):
        lane.ask("dance", RAW, 1)


def test_driver_that_was_killed_is_told(lane: Lane) -> None:
    lane.tree.kill()

    with pytest.raises(LaneError, match=r"ProcessPoolExecutor: its driver ended"):
        lane.ask("idle", RAW, 1)


def test_nothing_is_left_of_a_driver_whose_pool_cannot_be_closed(loads: Path) -> None:
    with Lane(CONTENDERS["ppe"], loads, workers=2) as lane:
        lane.started_s()
        pids = lane.tree.pids()
        os.kill(lane.tree.root, 9)

    assert len(pids) == 3
    assert lane.tree.pids() == []


def test_contender_with_a_wrong_result_is_dropped_and_the_others_run_on(loads: Path) -> None:
    run = measured().model_copy(update={"rounds": 1, "scale": 0.01})
    result = result_path(loads, RAW, 0)
    content = json.loads(result.read_bytes())
    result.write_text(json.dumps(content | {"race_name": "another one"}))
    told: list[str] = []

    Run([CONTENDERS["ppe"]], loads, run, told.append).perform()

    assert run.failed == {"ppe": "ProcessPoolExecutor: the result of raw race 0 is wrong"}
    assert told[0] == "start of ProcessPoolExecutor"


def test_absent_peer_is_named_with_its_remedy() -> None:
    by_distribution = Contender("x", "X", "", distribution="no-such-distribution")
    by_program = Contender("x", "X", "", programs=("no-such-program",))

    assert by_distribution.absence() == f"needs `{remedy('peers')}`"
    assert by_program.absence() == "needs the program no-such-program"
    assert CONTENDERS["ppe"].absence() is None
