"""The crash lab itself: a short run, wrong usage, and nothing is left behind.

With `scripts/test --long` the run takes five minutes, with a fresh seed, which the test prints.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from racepool.commands.chaos.lab_processes import Census
from tests.profiles import is_long
from tests.running import RACEPOOL, TESTS, WaitUntil

pytestmark = pytest.mark.system
CHEAP = (
    "worker-kill,worker-freeze-short,worker-freeze,broker-kill,broker-freeze,pool-freeze,stutter,client-kill,"
    "client-slow,supervisord-freeze,watchdog-kill,poison,gil-hold,hang,raise,garbage"
)
INTERRUPTED = 130
RUN = ("--seconds", 300) if is_long() else ("--seconds", 20, "--seed", 147)


@pytest.fixture
def folder() -> Iterator[Path]:
    """The parent of the labs' run directories; the paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as name:
        yield Path(name)


def start(folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
    return subprocess.Popen(
        [str(part) for part in (RACEPOOL, "chaos", *arguments)],
        env=base | {"TMPDIR": str(folder), "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: object) -> tuple[int, str, str]:
    with start(folder, *arguments) as lab:
        out, err = lab.communicate(timeout=150 + RUN[1])
    return lab.returncode, out, err


def run_directories(folder: Path) -> list[Path]:
    return list(folder.glob("racepool-chaos-*"))


def test_a_short_run_breaks_nothing_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    code, out, err = run(folder, *RUN, "--every", 0.7, "--faults", CHEAP, "--json", tmp_path / "found.json")

    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 0, out + err
    assert found["holds"]
    assert found["is_whole"]
    assert {each["kind"] for each in found["faults"]} == set(CHEAP.split(","))
    assert found["load"]["execs"] > found["load"]["right"] > 500
    assert found["load"]["expected_errors"].keys() >= {"WorkerCrashedError", "TransformError"}
    assert "nothing broke" in out
    assert run_directories(folder) == []
    assert Census(Path(found["directory"])).processes() == []


def test_a_transform_of_ones_own_is_put_to_the_test_as_well(folder: Path, tmp_path: Path) -> None:
    code, out, err = run(
        folder, "--seconds", 5, "--seed", 1, "--faults", "worker-kill", "--transform", "transforms:digits",
        "--json", tmp_path / "found.json", "--plot", tmp_path / "memory.png", "--keep",
    )  # fmt: skip

    assert code == 0, out + err
    assert json.loads((tmp_path / "found.json").read_text())["transform"] == "transforms:digits"
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert [str(path) in out for path in run_directories(folder)] == [True]


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ("transforms:echo", r"is not pure: race \d+ of seed 1 ended differently"),
        ("transforms:raise_", "raises at every race of the lab"),
        ("transforms:exit_", "gives no answer on a quiet pool: WorkerCrashedError"),
        ("nowhere:at_all", "No module named 'nowhere'"),
    ],
)
def test_transform_of_which_no_truth_can_be_had_is_refused(folder: Path, transform: str, words: str) -> None:
    code, out, err = run(folder, "--seconds", 5, "--seed", 1, "--transform", transform)

    assert (code, out) == (1, "")
    assert re.search(words, err)
    assert run_directories(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_lab_tells_what_it_saw_and_ends_everything(
    folder: Path, number: signal.Signals, wait_until: WaitUntil
) -> None:
    with start(folder, "--seconds", 300, "--seed", 1, "--every", 0.2, "--faults", "worker-freeze-for-good") as lab:
        assert lab.stderr is not None
        while not re.search(r"\d+ of 300 s", lab.stderr.readline()):
            assert lab.poll() is None
        (directory,) = run_directories(folder)
        wait_until(lambda: any(process.state == "T" for process in Census(directory).processes()), 20)
        lab.send_signal(number)
        out, err = lab.communicate(timeout=30)

    assert lab.returncode == INTERRUPTED, out + err
    assert "of 300, interrupted" in out
    assert "nothing broke until then" in out
    assert Census(directory).processes() == []
    assert run_directories(folder) == []


def test_lab_that_is_killed_leaves_no_pool_behind(folder: Path, wait_until: WaitUntil) -> None:
    with start(folder, "--seconds", 300, "--seed", 1, "--faults", "raise") as lab:
        assert lab.stderr is not None
        while not re.search(r"\d+ of 300 s", lab.stderr.readline()):
            assert lab.poll() is None
        (directory,) = run_directories(folder)
        lab.kill()

    wait_until(lambda: Census(directory).processes() == [], 20)
