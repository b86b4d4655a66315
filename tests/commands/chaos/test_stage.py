"""What is left over at the end of a lab: told by who started whom, not by names."""

import pytest

from racepool.commands.chaos.lab_processes import LabProcess
from racepool.commands.chaos.stage import surplus_among

SUPERVISORD = LabProcess(10, 1, 1, "supervisord", "supervisord", "S", 1)
WORKER = LabProcess(11, 1, 10, "worker", "worker-0", "S", 1)


def child(pid: int, parent: int) -> LabProcess:
    return LabProcess(pid, 1, parent, "other", "other", "S", 1, origin="worker-0")


@pytest.mark.parametrize(
    ("processes", "pids"),
    [
        ([SUPERVISORD, WORKER], []),
        ([SUPERVISORD, WORKER, child(12, 11), child(13, 12)], []),
        ([SUPERVISORD, WORKER, child(12, 1)], [12]),
        ([SUPERVISORD, WORKER, child(12, 10)], [12]),
        ([SUPERVISORD, child(13, 12), child(12, 1)], [13, 12]),
        ([LabProcess(14, 1, 2, "stutterer", "stutterer-3", "S", 1)], [14]),
        ([LabProcess(15, 1, 2, "client", "steady-0", "S", 1)], []),
        ([LabProcess(16, 1, 10, "other", "other", "S", 1)], []),
    ],
    ids=[
        "the pool", "children of a living worker", "an orphan", "an orphan that supervisord adopted",
        "a family of orphans", "a stutterer", "a client", "a child of supervisord that has no name yet",
    ],
)  # fmt: skip
def test_only_what_no_supervised_program_answers_for_is_left_over(processes: list[LabProcess], pids: list[int]) -> None:
    assert [each.pid for each in surplus_among(processes, ())] == pids


def test_what_another_promise_judges_is_left_out() -> None:
    assert surplus_among([SUPERVISORD, child(12, 1)], {12}) == []
