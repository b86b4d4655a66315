"""What races leave behind: a hanging worker, a child, a module that ends its process."""

import os
import subprocess
import sys

import pytest

from racepool.commands.chaos.injection import Awaited, Why
from racepool.commands.chaos.lab_processes import started
from racepool.commands.chaos.program_logs import SPAWNED, LogEntry
from tests.commands.chaos.building import Case

HANGS = "a hanging race was ended by its run timeout"
CHILDREN = "nothing that a worker started outlived it"
STARTS = "workers that cannot start were started once a second at most"


def states(case: Case) -> dict[str, str]:
    return {each.promise: each.state for each in case.verdict() if each.promise in (HANGS, CHILDREN, STARTS)}


def awaited(case: Case, kind: str, why: Why, *, due_at: float | None, seen_at: float) -> None:
    injection = case.inject(kind, 7)
    injection.awaited.append(Awaited(why, (7, 1), (6, 1), due_at, seen_at, is_gone=True))


@pytest.mark.parametrize("kind", ["hang", "alarm-handler", "alarm-ignored", "alarm-blocked", "broker-kill-alarm"])
@pytest.mark.parametrize(("seen_at", "state"), [(2.0, "ok"), (6.9, "ok"), (7.1, "BROKEN")])
def test_race_that_hangs_on_after_its_run_timeout_is_found(kind: str, seen_at: float, state: str) -> None:
    case = Case()
    awaited(case, kind, Why.HANGS, due_at=2.0, seen_at=seen_at)

    assert states(case) == {HANGS: state, CHILDREN: "not tried", STARTS: "not tried"}


def test_frozen_worker_may_hang_on() -> None:
    case = Case()
    awaited(case, "hang", Why.HANGS, due_at=2.0, seen_at=9.0)
    case.inject("worker-freeze", 7, until=9.0)

    assert states(case)[HANGS] == "not tried"


@pytest.mark.parametrize(
    ("why", "due_at", "seen_at", "state"),
    [
        (Why.RETURNED, 1.0, 1.0, "ok"),
        (Why.RETURNED, 1.0, 4.1, "BROKEN"),
        (Why.LEFT, None, 60.0, "not tried"),
        (Why.LEFT, 3.0, 12.9, "ok"),
        (Why.LEFT, 3.0, 13.1, "BROKEN"),
    ],
)
def test_child_that_outlives_what_it_may_is_found(why: Why, due_at: float | None, seen_at: float, state: str) -> None:
    case = Case()
    awaited(case, "child-left", why, due_at=due_at, seen_at=seen_at)

    assert states(case)[CHILDREN] == state


def mended(case: Case, starts: int, *, ready_at: float = 6.0) -> None:
    """Workers that could not start for four seconds."""
    case.inject("import-exit", 5, 6, 7, at=1.0, until=5.0)
    case.logs.entries += [LogEntry(1.0 + 3.9 * n / starts, SPAWNED, {"worker": "worker-1"}) for n in range(starts)]
    for index in range(case.evidence().settings.workers):
        case.log("worker_ready", ready_at, worker=f"worker-{index}", pid=index)


@pytest.mark.parametrize(("starts", "state"), [(1, "ok"), (6, "ok"), (7, "BROKEN")])
def test_starts_one_after_the_other_without_a_pause_are_found(starts: int, state: str) -> None:
    case = Case()
    mended(case, starts)

    assert states(case)[STARTS] == state


def test_worker_that_does_not_come_back_when_its_module_is_mended_is_found() -> None:
    case = Case()
    mended(case, 4, ready_at=11.5)

    assert states(case)[STARTS] == "BROKEN"
    case.ending = None
    assert states(case)[STARTS] == "ok"


def test_end_of_a_child_becomes_due_with_the_end_of_its_worker() -> None:
    own = os.getpid(), started(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        child = Awaited(Why.LEFT, own, (worker.pid, started(worker.pid)), None, 1.0)
        child.look(2.0)
        assert (child.due_at, child.seen_at, child.is_gone) == (None, 2.0, False)
        worker.kill()
        worker.wait()

    child.look(3.0)
    assert (child.due_at, child.seen_at, child.is_gone) == (3.0, 3.0, False)

    child.process = own[0], own[1] - 1
    child.look(4.0)
    assert (child.seen_at, child.is_gone) == (3.0, True)
