"""The report says what was tried, and a run in which nothing was tried is no success."""

from pathlib import Path

import pytest
from rich.console import Console

from racepool.commands.chaos.kinds import KINDS
from racepool.commands.chaos.lab import Findings, Lab, LabError
from racepool.commands.chaos.memory import MemorySamples
from racepool.commands.chaos.plan import Plan
from racepool.commands.chaos.report import as_json, report
from racepool.commands.chaos.verdict import verdict
from tests.commands.chaos.building import Case

KILL_AND_RAISE = (KINDS["worker-kill"], KINDS["raise"])


def findings(case: Case) -> Findings:
    plan = Plan(1, 30.0, 40.0, KILL_AND_RAISE, 1.5, 3)
    evidence = case.evidence()
    return Findings(
        plan, "module:function", Path("/run"), 0.0, 30.0, case.ending is not None, evidence, MemorySamples(),
        verdict(evidence),
    )  # fmt: skip


def shown(found: Findings) -> str:
    screen = Console(width=160, color_system=None)
    with screen.capture() as captured:
        screen.print(report(found, plain=True))
    return captured.get()


def test_kind_that_was_not_done_is_called_not_tried() -> None:
    case = Case()
    case.inject("worker-kill", 7)
    case.inject("raise").missed = "no worker began its race"

    found = findings(case)

    assert (found.holds, found.tried, found.not_tried) == (True, {"worker-kill"}, ["raise"])
    assert as_json(found)["not_tried"] == ["raise"]
    assert "raise        not tried (+1 missed)" in shown(found)
    assert shown(found).rstrip().endswith("nothing broke\nnot tried: raise")
    assert "not tried memory stayed flat" in shown(found)


def test_run_without_any_fault_is_no_success() -> None:
    found = findings(Case())

    assert found.holds
    assert not found.tried
    assert "nothing broke" not in shown(found)
    assert "no fault was done, so nothing was put to the test" in shown(found)
    assert {each["state"] for each in as_json(found)["invariants"]} == {"not tried"}


def test_plan_without_a_fault_is_refused_before_it_starts() -> None:
    plan = Plan(1, 5.0, 40.0, (KINDS["worker-freeze"],), 1.5, 3)

    with pytest.raises(LabError, match="no fault of these kinds fits into 5 s"):
        Lab(plan, None, print)
