"""The simulation finds faults: each is planted in a scratch copy, where some schedule then breaks a promise."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import ROOMS, ROOT

FOUND_WITHIN_S = 120  # of a busy machine; alone it takes seconds
SEED = "--hypothesis-seed=4"  # the same schedules in each run: whether they find it is no matter of luck
ASSERTION_FAILED = 1  # pytest's exit code for tests that ran and failed


@dataclass(frozen=True)
class Fault:
    """One piece of a core, and what stands there instead."""

    path: str
    piece: str
    instead: str


FAULTS = {
    "lease-fencing-taken-out": Fault(
        "broker/core.py",
        "if task is None or (result.epoch, result.lease, result.task_id) != (self.epoch, worker.lease, task.id):",
        "if task is None:",
    ),
    "requeue-at-the-tail": Fault(
        "broker/core.py",
        '        self.counters["requeued"] += 1\n',
        '        self.counters["requeued"] += 1\n        self.ledger._seq += 1\n        task.seq = self.ledger._seq\n',
    ),
    "nothing-submitted-again": Fault(
        "client/window.py",
        "        self.held = deque(self.tasks)\n",
        "        self.held = deque(task.id for task in self.tasks.values() if not task.is_sent)\n",
    ),
    "second-answer-delivered": Fault(
        "client/core.py",
        "            case Answer(task_id):\n                task = self.window.take(task_id)\n",
        "            case Answer(task_id):\n                task = self.window.tasks.get(task_id)\n",
    ),
    "pause-counted-as-silence": Fault(
        "broker/core.py",
        "            worker.last_seen = now\n            worker.deadline = max(",
        "            worker.deadline = max(",
    ),
    "busy-worker-given-work": Fault(
        "broker/core.py", "if not beat.busy or self.roster.is_full", "if self.roster.is_full"
    ),
    "given-up-never": Fault("broker/core.py", "if len(task.deaths) >= self.settings.max_attempts:", "if False:"),
    "backlog-of-a-vanished-client-kept": Fault(
        "broker/ledger.py", '            self.withdraw(task, "abandoned", now)\n', "            pass\n"
    ),
    "frozen-worker-never-killed": Fault("broker/core.py", "in self.frozen.overdue(now):", "in ():"),
    "two-recycled-at-once": Fault("broker/core.py", "        if until is not None:\n", "        if False:\n"),
    "second-charged": Fault(
        "broker/core.py",
        "            second.goes_alone |= by.costs_attempt\n",
        "            second.deaths += (Death(worker.name, by.reason, signal, worker.assigned_at, now),)\n",
    ),
    "second-left-behind-a-slow-task": Fault("broker/assignments.py", "in self.seconds.overdue(now) for", "in () for"),
    "recall-never-settled": Fault("broker/core.py", "        self.roster.settle(worker)\n", "        pass\n"),
    "work-given-before-the-return": Fault(
        "broker/roster.py",
        "        if worker.recalled is None:\n            self._idle",
        "        if True:\n            self._idle",
    ),
    "silent-broker-never-left": Fault(
        "client/core.py",
        "if now >= self._hello_at or (self._epoch is not None and now >= self._heard_at + self._timing.liveness_s):",
        "if now >= self._hello_at:",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_planted_fault_breaks_a_promise(fault: Fault, tmp_path: Path) -> None:
    for name in ("src", *ROOMS, "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    faulty = tmp_path / fault.path
    source = faulty.read_text(encoding="utf-8")
    assert source.count(fault.piece) == 1, "the code has changed; plant this fault anew"
    faulty.write_text(source.replace(fault.piece, fault.instead), encoding="utf-8")

    hunt = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=hunt", SEED, "tests/simulation/test_schedules.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=FOUND_WITHIN_S, check=False,
    )  # fmt: skip

    assert hunt.returncode == ASSERTION_FAILED, hunt.stdout
    assert "FAILED tests/simulation/test_schedules.py" in hunt.stdout
