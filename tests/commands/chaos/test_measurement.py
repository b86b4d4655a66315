"""Detection and recovery times, computed from injections and logs."""

import pytest

from racepool.commands.chaos.measurement import NOT_NOTICED, Noticed, _elapsed, detection_bound_s, measure
from racepool.commands.chaos.program_logs import EXITED, SPAWNED, LogEntry
from tests.commands.chaos.building import Case, line


def measured(case: Case) -> list[Noticed]:
    return measure(case.injections, case.logs)


def ready(case: Case, at: float, pid: int) -> None:
    case.log("worker_ready", at, worker="worker-0", pid=pid)


def about(
    how: str, detection_s: float | None, recovery_s: float | None, *, is_clouded: bool = False
) -> tuple[object, ...]:
    figures = (each if each is None else pytest.approx(each, abs=1e-3) for each in (detection_s, recovery_s))
    return (how, *figures, is_clouded)


def told(noticed: Noticed) -> tuple[object, ...]:
    return noticed.how, noticed.detection_s, noticed.recovery_s, noticed.is_clouded


def only(case: Case) -> tuple[object, ...]:
    (noticed,) = measured(case)
    return told(noticed)


def test_killed_worker_is_noticed_by_its_exit_and_back_when_the_next_is_ready() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("worker-kill", 7, at=2.0)
    case.lose(7, at=2.005)
    ready(case, 3.0, 8)

    assert only(case) == about("process_exit", 0.005, 1.0)


def test_each_worker_of_several_is_measured() -> None:
    case = Case()
    for pid in (7, 8):
        ready(case, 1.0, pid)
    case.inject("workers-kill-all", 7, 8, at=2.0)
    case.lose(7, at=2.1)
    case.lose(8, at=2.2)

    assert [noticed.detection_s for noticed in measured(case)] == [pytest.approx(0.1), pytest.approx(0.2)]


def test_frozen_worker_is_back_when_it_was_let_go_and_is_ready_again() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("worker-freeze", 7, at=2.0, until=6.0)
    case.lose(7, at=4.1, reason="silence")
    ready(case, 6.3, 7)

    assert only(case) == about("silence", 2.1, 0.3)


def test_worker_that_was_not_ready_yet_can_be_missed_by_nobody() -> None:
    case = Case()
    case.inject("worker-freeze", 7, at=2.0, until=6.0)
    ready(case, 6.3, 7)
    case.lose(7, at=8.0)

    assert only(case) == about(NOT_NOTICED, None, None)


def test_later_death_of_a_worker_that_was_let_go_is_another_matter() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("worker-freeze-short", 7, at=2.0, until=2.5)
    case.lose(7, at=3.5)

    assert only(case) == about(NOT_NOTICED, None, None)


def test_time_without_a_broker_is_taken_off() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("worker-kill", 7, at=2.0)
    case.inject("broker-freeze", 5, at=1.9, until=4.0)
    case.lose(7, at=4.02)
    ready(case, 5.0, 8)

    assert (measured(case)[0].how, *only_stats(measured(case)[0])) == about("process_exit", 0.02, 1.0, is_clouded=True)


def only_stats(noticed: Noticed) -> tuple[float | None, float | None, bool]:
    return noticed.detection_s, noticed.recovery_s, noticed.is_clouded


def test_hang_is_measured_from_the_end_of_its_run_timeout() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("hang", 7, at=2.0)
    case.lose(7, at=3.01, reason="run_timeout")
    ready(case, 4.0, 8)

    assert only(case) == about("run_timeout", 0.01, 1.0)


def test_hang_that_outlives_a_broker_is_ended_by_its_own_timer_within_the_liveness() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("hang", 7, at=2.0)
    case.log("broker_started", 2.5)
    case.lose(7, at=5.1, reason="process_exit")
    ready(case, 5.5, 8)

    (noticed,) = measured(case)
    assert noticed.how == "own timer"
    assert detection_bound_s(noticed, 2.0) == 3.0


def test_hang_that_its_broker_left_to_that_timer_is_noticed_too_late() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("hang", 7, at=2.0)
    case.lose(7, at=5.1, reason="process_exit")

    assert [detection_bound_s(noticed, 2.0) for noticed in measured(case)] == [1.0]


def test_held_gil_is_seen_and_costs_nothing() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("gil-hold", 7, at=2.0)
    case.log("worker_silent", 4.0, worker="worker-0", pid=7)

    assert only(case) == about("it uses CPU", 2.0, None)


def test_killed_broker_is_noticed_by_supervisord_and_back_with_its_first_worker() -> None:
    case = Case()
    case.inject("broker-kill", 5, at=2.0)
    case.logs.entries.append(LogEntry(2.7, EXITED, {"worker": "broker"}))
    case.log("broker_started", 3.0)
    ready(case, 3.2, 7)

    assert only(case) == about("supervisord", 0.7, 1.2)


def test_broker_frozen_for_good_is_noticed_by_whoever_ends_it() -> None:
    case = Case()
    case.inject("broker-freeze-for-good", 5, at=2.0).hits[0].died_at = 9.0
    case.log("broker_started", 10.0)
    ready(case, 10.2, 7)

    assert only(case) == about("event listener", 7.0, 8.2)


def test_frozen_worker_that_no_broker_knows_is_noticed_by_the_watchdog() -> None:
    case = Case()
    ready(case, 1.0, 7)
    case.inject("worker-freeze-for-good", 7, at=2.0)
    case.inject("broker-kill", 5, at=2.5)
    case.log("broker_started", 3.0)
    case.logs.on_watchdog_line(line("worker_killed", 18.5, process="worker:worker-0", pid=7, silent_s=15.1))
    ready(case, 19.0, 8)

    assert told(measured(case)[0]) == about("event listener", 16.0, 16.5, is_clouded=True)


def test_killed_watchdog_is_noticed_and_started_anew_by_supervisord() -> None:
    case = Case()
    case.inject("watchdog-kill", 6, at=2.0)
    case.logs.entries.append(LogEntry(2.4, EXITED, {"worker": "broker"}))
    case.logs.entries.append(LogEntry(2.7, EXITED, {"worker": "watchdog"}))
    case.logs.entries.append(LogEntry(3.1, SPAWNED, {"worker": "worker-0", "pid": 8}))
    case.logs.entries.append(LogEntry(3.2, SPAWNED, {"worker": "watchdog", "pid": 9}))

    assert only(case) == about("supervisord", 0.7, 1.2)


def test_further_worker_is_never_back() -> None:
    case = Case()
    case.log("worker_ready", 1.0, worker="stutterer-0", pid=7)
    case.inject("stutter", 7, at=4.0)
    case.log("worker_lost", 4.01, worker="stutterer-0", pid=7, reason="process_exit")
    ready(case, 5.0, 8)

    assert only(case) == about("process_exit", 0.01, None)


@pytest.mark.parametrize("kind", ["broker-freeze", "pool-freeze"])
def test_frozen_broker_notices_its_own_pause(kind: str) -> None:
    case = Case()
    case.inject(kind, 5, at=2.0, until=4.0)
    case.log("broker_paused", 4.01)

    assert only(case) == about("own pause", 0.01, None)


def test_killed_client_is_noticed_by_its_silence() -> None:
    case = Case()
    case.inject("client-kill", at=2.0)
    case.log("task_abandoned", 4.0, queued=3, in_flight=1)

    assert only(case) == about("silence", 2.0, None)


def test_broker_without_its_sockets_ends_itself() -> None:
    case = Case()
    case.inject("sockets-removed", at=2.0)
    case.log("broker_failed", 5.0, reason="removed")
    case.log("broker_started", 7.0)
    ready(case, 7.5, 7)

    assert only(case) == about("the broker", 3.0, 5.5)


def test_supervisord_that_was_killed_is_back_with_the_first_worker_of_the_next() -> None:
    case = Case()
    case.inject("supervisord-kill", 1, 2, at=2.0, until=3.0)
    case.log("broker_started", 4.0)
    ready(case, 4.5, 7)

    assert only(case) == about("the lab", None, 1.5)


def test_fault_that_was_missed_is_not_measured() -> None:
    case = Case()
    case.inject("worker-kill").missed = "nobody was there"

    assert measured(case) == []


@pytest.mark.parametrize(
    ("absences", "expected"),
    [
        ([], (5.0, False)),
        ([(6.0, 7.0), (-2.0, -1.0)], (5.0, False)),
        ([(-1.0, 1.0), (4.0, 9.0)], (3.0, True)),
        ([(1.0, 3.0), (2.0, 4.0)], (2.0, True)),
        ([(2.0, 3.0), (1.0, 4.0)], (2.0, True)),
    ],
)
def test_absences_are_subtracted_once_where_they_overlap(
    absences: list[tuple[float, float]], expected: tuple[float, bool]
) -> None:
    assert _elapsed(0.0, 5.0, absences) == expected
