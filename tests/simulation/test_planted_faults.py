"""The simulation finds faults: each one is planted in a scratch copy, and then some schedule breaks a promise there.

Four are planted in every run. `scripts/test --long` plants all of them, and takes some minutes.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.profiles import is_long
from tests.running import ROOMS, ROOT

FOUND_WITHIN_S = 120  # on a busy machine; on an idle one it takes seconds
SEED = "--hypothesis-seed=4"  # the same schedules in each run, so that the outcome does not depend on luck
ASSERTION_FAILED = 1  # pytest's exit code for tests that ran and failed


@dataclass(frozen=True)
class Fault:
    """One piece of a core, and the wrong text that replaces it."""

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
        "broker/assignments.py",
        '        self.ledger.counters["requeued"] += 1\n',
        '        self.ledger.counters["requeued"] += 1\n'
        "        self.ledger._seq += 1\n        task.seq = self.ledger._seq\n",
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
        "broker/sessions.py", "if not beat.busy or self._roster.is_full", "if self._roster.is_full"
    ),
    "given-up-never": Fault(
        "broker/assignments.py", "if len(task.deaths) >= self._settings.max_attempts:", "if False:"
    ),
    "backlog-of-a-vanished-client-kept": Fault(
        "broker/ledger.py", '            self.end_queued(task, "abandoned", now)\n', "            pass\n"
    ),
    "frozen-worker-never-killed": Fault("broker/sessions.py", "in self.frozen.overdue(now):", "in ():"),
    "two-recycled-at-once": Fault("broker/sessions.py", "        if until is not None:\n", "        if False:\n"),
    "prefetched-task-charged": Fault(
        "broker/assignments.py",
        "            prefetched.goes_alone |= end.costs_attempt\n",
        "            prefetched.deaths += (Death(worker.name, end.reason, signal, worker.assigned_at, now),)\n",
    ),
    "prefetched-task-left-behind-a-slow-one": Fault(
        "broker/assignments.py", "in self.prefetch.overdue(now) for", "in () for"
    ),
    "recall-never-settled": Fault("broker/core.py", "        self.roster.settle(worker)\n", "        pass\n"),
    "work-given-before-the-return": Fault(
        "broker/roster.py",
        "        if worker.recalled is None:\n            self._idle",
        "        if True:\n            self._idle",
    ),
    "silent-broker-never-left": Fault(
        "client/core.py",
        "if now >= self._hello_at or (self._epoch is not None and now >= self._heard_at + self._limits.liveness_s):",
        "if now >= self._hello_at:",
    ),
}


ALWAYS = ("lease-fencing-taken-out", "requeue-at-the-tail", "nothing-submitted-again", "second-answer-delivered")


@pytest.mark.parametrize("name", FAULTS)
def test_fault_can_be_planted(name: str) -> None:
    fault = FAULTS[name]

    assert (ROOT / fault.path).read_text(encoding="utf-8").count(fault.piece) == 1, "the code has changed"


@pytest.mark.system
@pytest.mark.parametrize("name", FAULTS if is_long() else ALWAYS)
def test_planted_fault_breaks_a_promise(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    for folder in ("src", *ROOMS, "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    faulty = tmp_path / fault.path
    source = faulty.read_text(encoding="utf-8")
    faulty.write_text(source.replace(fault.piece, fault.instead), encoding="utf-8")

    hunt = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=hunt", SEED, "tests/simulation/test_schedules.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=FOUND_WITHIN_S, check=False,
    )  # fmt: skip

    assert hunt.returncode == ASSERTION_FAILED, hunt.stdout
    assert "FAILED tests/simulation/test_schedules.py" in hunt.stdout
