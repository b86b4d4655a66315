"""The crash lab finds faults with real processes: each one is planted in a scratch copy, and a run breaks a promise.

The faults are those of the simulation, as far as real processes show them, and some of the shells, which the simulation
does not run. `scripts/test --long` plants them: a hunt needs the machine for itself. The simulation finds four of its
faults in every run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.profiles import is_long
from tests.running import ROOMS, ROOT
from tests.simulation.test_planted_faults import FAULTS as SIMULATED
from tests.simulation.test_planted_faults import Fault

pytestmark = pytest.mark.system
BROKEN = 1
FOUND_WITHIN_S = 180


@dataclass(frozen=True)
class Hunt:
    """A planted fault, the fault kinds of the run, and the promise that the run must find broken."""

    fault: Fault
    kinds: str
    promise: str
    seconds: int = 5
    every_s: float = 1.0
    rate: int = 100
    workers: int = 3


HUNTS = {
    "requeue-at-the-tail": Hunt(
        SIMULATED["requeue-at-the-tail"],
        "worker-kill", "tasks were assigned in the order of submission", 6, every_s=0.6, rate=250,
    ),
    "ends-of-processes-unheard": Hunt(
        Fault(
            "broker/process_watch.py",
            "return [self._session_of[pidfd] for pidfd, _ in self._epoll.poll(0)]", "return []",
        ),
        "worker-kill", "each loss was noticed in time", 6, every_s=0.6, rate=250,
    ),
    "nothing-submitted-again": Hunt(SIMULATED["nothing-submitted-again"], "broker-kill", "every exec resolved"),
    "lease-fencing-taken-out": Hunt(
        SIMULATED["lease-fencing-taken-out"], "stutter", "every result was right", 8
    ),
    "second-answer-delivered": Hunt(
        SIMULATED["second-answer-delivered"], "broker-kill", "every exec resolved"
    ),
    "pause-counted-as-silence": Hunt(
        SIMULATED["pause-counted-as-silence"], "pool-freeze", "a pause of the broker was not taken for silence", 8
    ),
    "busy-worker-given-work": Hunt(
        SIMULATED["busy-worker-given-work"],
        "worker-freeze-calm", "no worker was called lost without a cause", 15, rate=1, workers=6,
    ),
    "frozen-worker-never-killed": Hunt(
        SIMULATED["frozen-worker-never-killed"],
        "worker-freeze-for-good", "frozen programs were replaced, and none outlived supervisord",
    ),
    "given-up-never": Hunt(
        SIMULATED["given-up-never"], "poison", "errors came only where a fault explains them"
    ),
    "backlog-of-a-vanished-client-kept": Hunt(
        SIMULATED["backlog-of-a-vanished-client-kept"], "client-kill", "a killed client's queued tasks were dropped", 8
    ),
    "busy-process-taken-for-frozen": Hunt(
        Fault(
            "broker/process_watch.py",
            "return watched.ticks > before or process_state(watched.pid) == RUNNABLE", "return False",
        ),
        "gil-hold", "no worker was called lost without a cause", 8,
    ),
    "orphans-of-supervisord": Hunt(
        Fault(
            "protocol/processes.py",
            "    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)\n", "",
        ),
        "supervisord-kill", "frozen programs were replaced, and none outlived supervisord", 6,
    ),
    "sockets-unwatched": Hunt(
        Fault("broker/server.py", "if now - self._sockets_checked_at > SOCKET_CHECK_S:", "if False:"),
        "sockets-removed", "the pool was whole again",
    ),
}  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("src", *ROOMS):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "supervisord.conf", tmp_path)
    return tmp_path


@pytest.fixture
def folder() -> Iterator[Path]:
    """The parent of the lab's run directory; the paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize("name", HUNTS)
def test_fault_can_be_planted(name: str) -> None:
    fault = HUNTS[name].fault

    assert (ROOT / fault.path).read_text(encoding="utf-8").count(fault.piece) == 1, "the code has changed"


@pytest.mark.skipif(not is_long(), reason="needs the machine for itself: scripts/test --long")
@pytest.mark.parametrize("name", HUNTS)
def test_planted_fault_breaks_a_promise_of_real_processes(name: str, copy: Path, folder: Path) -> None:
    hunt, figures = HUNTS[name], folder / "found.json"
    faulty = copy / hunt.fault.path
    source = faulty.read_text(encoding="utf-8")
    assert source.count(hunt.fault.piece) == 1, "the code has changed; change this fault too"
    faulty.write_text(source.replace(hunt.fault.piece, hunt.fault.instead), encoding="utf-8")
    base = {key: value for key, value in os.environ.items() if not key.startswith("RACEPOOL_")}

    lab = subprocess.run(
        [
            sys.executable, "-c", "from racepool.commands.group import main; main()",
            "chaos", "--seed", "1", "--json", figures,
            "--seconds", str(hunt.seconds), "--every", str(hunt.every_s), "--faults", hunt.kinds,
            "--rate", str(hunt.rate), "--workers", str(hunt.workers),
        ],
        cwd=copy, env=base | {"PYTHONPATH": str(copy / "src"), "TMPDIR": str(folder)}, capture_output=True, text=True,
        timeout=FOUND_WITHIN_S, check=False,
    )  # fmt: skip

    assert lab.returncode == BROKEN, lab.stdout + lab.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert [each["promise"] for each in found["invariants"] if each["broken"]].count(hunt.promise) == 1, lab.stdout
