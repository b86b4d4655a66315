"""The crash lab itself: short runs, transforms that are refused, and nothing is left behind.

Labs mostly wait, so several run at the same time. With `scripts/test --long` one run has all cheap kinds together and
takes five minutes, with a fresh seed, which the test prints.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from racepool.commands.chaos.lab_processes import Census
from tests.profiles import is_long
from tests.running import RACEPOOL, TESTS, WaitUntil

pytestmark = pytest.mark.system
IN_PROGRAMS = "worker-kill,broker-kill,broker-freeze,pool-freeze,watchdog-kill,client-kill,poison,hang,raise"
IN_PEERS = (
    "worker-kill,worker-freeze-short,worker-freeze,broker-kill,stutter,client-slow,gil-hold,garbage,supervisord-freeze"
)
INTERRUPTED = 130
LONG_S = 300
RUN = (
    ("--seconds", LONG_S, "--faults", f"{IN_PROGRAMS},{IN_PEERS}")
    if is_long()
    else ("--seconds", 11, "--seed", 82, "--faults", IN_PROGRAMS)  # the seeds are those of plans with each kind in them
)
RUN_OF_ONES_OWN = ("--seconds", 10, "--seed", 1968, "--faults", IN_PEERS, "--transform", "transforms:digits")


@contextmanager
def folder_for_labs() -> Iterator[Path]:
    """The parent of the labs' run directories; the paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_labs() as folder:
        yield folder


def start(folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    base = {name: value for name, value in os.environ.items() if not name.startswith("RACEPOOL_")}
    return subprocess.Popen(
        [str(part) for part in (RACEPOOL, "chaos", *arguments)],
        env=base | {"TMPDIR": str(folder), "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(lab: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        out, err = lab.communicate(timeout=150 + LONG_S)
    finally:
        lab.kill()
    return lab.returncode, out, err


def under_load(lab: "subprocess.Popen[str]") -> None:
    """Waits until the lab's load has begun."""
    assert lab.stderr is not None
    while not re.match(r"\s*\d+ of 300 s", lab.stderr.readline()):
        assert lab.poll() is None


@dataclass
class Run:
    """A lab that was started, and the folder for its run directory and its files."""

    folder: Path
    lab: "subprocess.Popen[str]"

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "found.json").read_text())
        return found


@pytest.fixture(scope="module")
def runs() -> Iterator[tuple[Run, Run]]:
    """Two runs at the same time; the second one with a transform of one's own."""
    with folder_for_labs() as one, folder_for_labs() as other:
        begun = [
            Run(one, start(one, *RUN, "--every", 0.4, "--json", one / "found.json")),
            Run(other, start(
                other, *RUN_OF_ONES_OWN, "--every", 0.4, "--json", other / "found.json",
                "--plot", other / "memory.png", "--keep",
            )),
        ]  # fmt: skip
        yield begun[0], begun[1]
        for run in begun:
            run.lab.kill()
            run.lab.communicate()


def run_directories(folder: Path) -> list[Path]:
    return list(folder.glob("racepool-chaos-*"))


def tried(found: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in found["faults"] if each["injected"]}


def test_a_short_run_breaks_nothing_and_leaves_nothing(runs: tuple[Run, Run]) -> None:
    run, _ = runs
    code, out, err = ended(run.lab)

    assert code == 0, out + err
    assert run.found["holds"]
    assert run.found["is_whole"]
    assert tried(run.found) >= set(IN_PROGRAMS.split(","))
    assert run.found["not_tried"] == []
    assert run.found["load"]["execs"] > run.found["load"]["right"] > 500
    assert run.found["load"]["expected_errors"].keys() >= {"WorkerCrashedError", "TransformError"}
    assert "nothing broke" in out
    assert run_directories(run.folder) == []
    assert Census(Path(run.found["directory"])).processes() == []


def test_a_transform_of_ones_own_is_put_to_the_test_as_well(runs: tuple[Run, Run]) -> None:
    _, run = runs
    code, out, err = ended(run.lab)

    assert code == 0, out + err
    assert run.found["transform"] == "transforms:digits"
    assert tried(run.found) == set(IN_PEERS.split(","))
    assert (run.folder / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert [str(path) in out for path in run_directories(run.folder)] == [True]


def test_transform_of_which_no_truth_can_be_had_is_refused(folder: Path) -> None:
    reasons = {
        "transforms:echo": r"is not pure: race \d+ of seed 1 ended differently",
        "transforms:raise_": "raises at every race of the lab",
        "transforms:exit_": "gives no answer on a quiet pool: WorkerCrashedError",
        "nowhere:at_all": "No module named 'nowhere'",
    }
    labs = {name: start(folder, "--seconds", 5, "--seed", 1, "--transform", name) for name in reasons}

    for name, lab in labs.items():
        code, out, err = ended(lab)
        assert (code, out) == (1, ""), name
        assert re.search(reasons[name], err), name
    assert run_directories(folder) == []


ENDLESS = {
    signal.SIGTERM: "worker-freeze-for-good",
    signal.SIGINT: "worker-freeze-for-good",
    signal.SIGKILL: "raise",  # supervisord is patient with a frozen worker
}


@pytest.fixture(scope="module")
def endless() -> Iterator[dict[signal.Signals, Run]]:
    """Three labs at the same time, for the signals that end a lab."""
    always = ("--seconds", 300, "--seed", 1, "--every", 0.2, "--faults")
    with ExitStack() as stack:
        folders = {number: stack.enter_context(folder_for_labs()) for number in ENDLESS}
        begun = {number: Run(folder, start(folder, *always, ENDLESS[number])) for number, folder in folders.items()}
        yield begun
        for run in begun.values():
            run.lab.kill()
            run.lab.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_lab_tells_what_it_saw_and_ends_everything(
    endless: dict[signal.Signals, Run], number: signal.Signals, wait_until: WaitUntil
) -> None:
    run = endless[number]
    under_load(run.lab)
    (directory,) = run_directories(run.folder)
    wait_until(lambda: any(process.state == "T" for process in Census(directory).processes()), 60)
    run.lab.send_signal(number)
    code, out, err = ended(run.lab)

    assert code == INTERRUPTED, out + err
    assert "of 300, interrupted" in out
    assert "nothing broke until then" in out
    assert Census(directory).processes() == []
    assert run_directories(run.folder) == []


def test_lab_that_is_killed_leaves_no_pool_behind(endless: dict[signal.Signals, Run], wait_until: WaitUntil) -> None:
    run = endless[signal.SIGKILL]
    under_load(run.lab)
    (directory,) = run_directories(run.folder)

    run.lab.kill()

    wait_until(lambda: Census(directory).processes() == [], 20)
