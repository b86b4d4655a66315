"""The verdict finds each kind of broken promise, and accepts what a fault explains."""

import pytest

from racepool.commands.chaos.evidence import Ending
from racepool.commands.chaos.memory import Growth
from racepool.commands.chaos.records import OK, Resolved, Submitted
from racepool.commands.chaos.verdict import BROKEN, NOT_TRIED, expected_errors, unresolved_count
from racepool.commands.chaos.witness import LONGEST_KEPT, Truth, Witness
from tests.commands.chaos.building import ALICE, BOB, Case, line, pool_stats, task_id

OVERRAN = "TaskTimeoutError running"
CRASHED = "WorkerCrashedError"


def test_a_run_in_which_all_went_well_breaks_nothing() -> None:
    case = Case()
    case.run(1)
    case.run(2, CRASHED, fault="poison")
    case.run(3, OVERRAN, fault="hang")
    case.run(4, "TransformError", fault="raise")
    case.run(5, fault="gil-hold")
    for n in (1, 2, 3):
        case.assign(n)
    case.witness.on_stats(pool_stats(submitted=3, completed=2, crashed=1))

    assert case.broken() == []
    assert case.witness.counts == {"execs": 5, "right": 2}
    assert expected_errors(case.evidence()) == {CRASHED: 1, OVERRAN: 1, "TransformError": 1}


def test_second_callback_is_found() -> None:
    case = Case()
    case.run(1)
    case.resolve(1, CRASHED)

    assert case.broken() == ["no exec called back twice"]


def test_wrong_result_is_found() -> None:
    case = Case()
    case.submit(1)
    case.resolve(1, digest="digest-1")

    assert case.broken() == ["every result was right"]


@pytest.mark.parametrize("fault", ["poison", "hang", "raise"])
def test_result_of_a_race_that_cannot_have_one_is_found(fault: str) -> None:
    case = Case()
    case.run(1, fault=fault)

    assert case.broken() == ["every result was right"]


@pytest.mark.parametrize("outcome", [CRASHED, OVERRAN, "TaskTimeoutError queued", "PoolBrokenError", "TransformError"])
def test_error_that_nothing_explains_is_found(outcome: str) -> None:
    case = Case()
    case.run(1, outcome)

    assert case.broken() == ["errors came only where a fault explains them"]


def test_another_error_than_the_race_asked_for_is_found() -> None:
    case = Case()
    case.run(1, "TransformError", fault="poison")

    assert case.broken() == ["errors came only where a fault explains them"]


@pytest.mark.parametrize(("deaths", "is_explained"), [(3, True), (2, False)])
def test_task_whose_workers_were_all_killed_may_be_given_up(deaths: int, is_explained: bool) -> None:  # noqa: FBT001
    case = Case()
    case.run(1, CRASHED)
    for pid in range(deaths):
        case.inject("worker-kill", pid)
        case.lose(pid, task=task_id(ALICE, 1))

    assert ("errors came only where a fault explains them" not in case.broken()) is is_explained


def test_task_of_a_frozen_worker_may_run_out_of_time() -> None:
    case = Case()
    case.run(1, OVERRAN)
    case.inject("worker-freeze", 7, until=5.0)
    case.lose(7, reason="run_timeout", task=task_id(ALICE, 1))

    assert case.broken() == []


def test_task_of_a_killed_worker_may_not_run_out_of_time() -> None:
    case = Case()
    case.run(1, OVERRAN)
    case.inject("worker-kill", 7)
    case.lose(7, reason="run_timeout", task=task_id(ALICE, 1))

    assert case.broken() == ["errors came only where a fault explains them"]


def test_exec_that_took_longer_than_is_promised_is_found() -> None:
    case = Case()
    case.submit(1)
    case.resolve(1, at=1.0 + 30 + 3 * (10 + 3) + 0.1)

    assert case.broken() == ["every exec resolved in time"]


def test_each_restart_of_the_broker_gives_as_many_attempts_again() -> None:
    case = Case()
    case.submit(1)
    case.log("broker_started", 20.0)
    case.resolve(1, at=1.0 + 30 + 3 * (10 + 3) + 0.1)

    assert case.broken() == []


def test_client_that_stood_still_may_hear_of_its_answer_later() -> None:
    case = Case()
    case.submit(1, client=BOB)
    case.inject("client-freeze", 9, until=4.0, client=BOB)
    case.resolve(1, client=BOB, at=1.0 + 30 + 3 * (10 + 3) + 0.9)

    assert case.broken() == []


def test_unresolved_exec_is_found() -> None:
    case = Case()
    case.submit(1)

    assert case.broken() == ["every exec resolved"]
    assert unresolved_count(case.evidence()) == 1


def test_execs_of_a_killed_client_need_not_resolve() -> None:
    case = Case()
    case.submit(1, client="victim-0")
    case.inject("client-kill", client="victim-0")

    assert case.broken() == []


def test_a_run_that_was_cut_short_is_not_asked_for_its_end() -> None:
    case = Case(ending=None)
    case.submit(1)

    assert case.broken() == []


def test_assignment_out_of_order_is_found() -> None:
    case = Case()
    for n in (1, 2, 3):
        case.run(n)
    for n in (1, 3, 2):
        case.assign(n)

    assert case.broken() == ["tasks were assigned in the order of submission"]


def test_task_that_lost_its_place_is_found() -> None:
    case = Case()
    for n in (1, 2, 3):
        case.run(n)
    case.assign(1)
    case.assign(2)
    case.requeue(1)
    case.assign(3)
    case.assign(1, attempt=2)

    assert case.broken() == ["tasks were assigned in the order of submission"]


def test_task_that_went_back_and_came_first_again_breaks_nothing() -> None:
    case = Case()
    for n in (1, 2, 3):
        case.run(n)
    case.assign(1)
    case.requeue(1)
    case.assign(1, attempt=2)
    case.assign(2)
    case.assign(3)

    assert case.broken() == []


def test_task_that_ran_out_of_time_at_its_place_is_overtaken_by_nobody() -> None:
    case = Case()
    case.run(1, "TaskTimeoutError queued")
    case.run(2)
    case.assign(1)
    case.requeue(1)
    case.assign(2)

    assert case.broken() == ["errors came only where a fault explains them"]


def test_order_is_one_clients_and_one_epochs() -> None:
    case = Case()
    for n in (1, 2):
        case.run(n)
        case.run(n, client=BOB)
    for client, n in ((ALICE, 1), (ALICE, 2), (BOB, 1), (BOB, 2)):
        case.assign(n, client=client)
    case.requeue(2)
    case.assign(2, attempt=2)
    case.requeue(1)
    case.log("broker_started")
    case.assign(2)
    case.requeue(2)
    case.assign(2, attempt=2)

    assert case.broken() == []


def test_log_with_gaps_tells_nothing_of_the_order() -> None:
    case = Case()
    for n in (1, 2):
        case.run(n)
    for n in (2, 1):
        case.assign(n)
    case.log("log_lines_dropped", count=1)

    assert case.broken() == []


def test_tasks_of_a_vanished_client_that_are_begun_all_the_same_are_found() -> None:
    case = Case()
    case.inject("client-kill", client="victim-0", at=1.0)
    for n, at in ((1, 2.9), (2, 5.0)):
        case.submit(n, client="victim-0")
        case.assign(n, client="victim-0", at=at)

    assert case.broken() == ["a killed client's queued tasks were dropped"]


def test_broker_that_was_absent_meanwhile_drops_them_later() -> None:
    case = Case()
    case.inject("client-kill", client="victim-0", at=1.0)
    case.inject("broker-freeze", 5, at=2.0, until=4.5)
    case.submit(1, client="victim-0")
    case.assign(1, client="victim-0", at=5.0)

    assert case.broken() == []


def test_broker_that_a_busy_machine_had_stand_still_meanwhile_drops_them_later() -> None:
    case = Case()
    case.inject("client-kill", client="victim-0", at=1.0)
    case.log("broker_paused", 3.0)
    case.submit(1, client="victim-0")
    case.assign(1, client="victim-0", at=4.9)

    assert case.broken() == []


def test_loss_that_no_fault_explains_is_found() -> None:
    case = Case()
    case.inject("worker-kill", 7)
    case.lose(7)
    case.lose(8, reason="silence")

    assert case.broken() == ["no worker was called lost without a cause"]


def test_loss_of_a_worker_out_of_step_is_explained_by_no_fault() -> None:
    case = Case()
    case.inject("worker-freeze", 7, until=4.0)
    case.lose(7, at=3.0, reason="silence")
    case.lose(7, at=6.0, reason="out_of_step")

    assert case.broken() == ["no worker was called lost without a cause"]


@pytest.mark.parametrize(
    ("event", "reason", "at", "is_broken"),
    [
        ("worker_silent", "it uses CPU", 4.001, True),
        ("worker_lost", "silence", 5.9, True),
        ("worker_lost", "silence", 6.0, False),
        ("worker_lost", "process_exit", 4.001, False),
        ("worker_silent", "it uses CPU", 3.9, False),
    ],
)
def test_silence_that_was_the_brokers_own_pause_is_found(event: str, reason: str, at: float, is_broken: bool) -> None:  # noqa: FBT001
    case = Case()
    case.inject("worker-freeze", 7, until=9.0)
    case.log("broker_paused", 4.0)
    case.log(event, at, worker="worker-0", pid=7, reason=reason)

    assert case.broken() == (["a pause of the broker was not taken for silence"] if is_broken else [])


def test_broker_that_stood_still_with_all_others_drops_a_killed_clients_tasks_later() -> None:
    case = Case()
    case.inject("client-kill", client="victim-0", at=1.0)
    case.inject("pool-freeze", 5, at=2.0, until=4.5)
    case.submit(1, client="victim-0")
    case.assign(1, client="victim-0", at=5.0)

    assert case.broken() == []


def test_death_of_a_further_worker_explains_its_loss_and_is_to_be_noticed_at_once() -> None:
    case = Case()
    case.log("worker_ready", 0.5, worker="stutterer-1", pid=7)
    case.inject("stutter", 7, at=3.0)
    case.lose(7, at=4.2)

    assert case.broken() == ["each loss was noticed in time"]


@pytest.mark.parametrize(("at", "is_late"), [(22.0, False), (24.0, True)])
def test_watchdogs_patience_with_a_worker_that_no_broker_knows_has_an_end(at: float, is_late: bool) -> None:  # noqa: FBT001
    case = Case()
    case.inject("worker-freeze-for-good", 7, at=1.0)
    case.logs.on_watchdog_line(line("worker_killed", at, process="worker:worker-0", pid=7))

    assert case.broken() == (["each loss was noticed in time"] if is_late else [])


@pytest.mark.parametrize("kind", ["worker-freeze-short", "gil-hold"])
def test_fault_that_must_cost_no_worker_explains_no_loss(kind: str) -> None:
    case = Case()
    case.inject(kind, 7, until=1.4)
    case.lose(7, reason="silence")

    assert case.broken() == ["no worker was called lost without a cause"]


@pytest.mark.parametrize(
    ("kind", "reason", "at"),
    [
        ("worker-kill", "process_exit", 2.2),
        ("worker-kill", "silence", 3.1),
        ("worker-kill", "replaced", 2.2),
        ("worker-freeze-for-good", "silence", 6.2),
    ],
)
def test_loss_that_was_noticed_late_is_found(kind: str, reason: str, at: float) -> None:
    case = Case()
    case.log("worker_ready", 0.5, worker="worker-0", pid=7)
    case.inject(kind, 7)
    case.lose(7, at=at, reason=reason)

    assert case.broken() == ["each loss was noticed in time"]


def test_counters_that_do_not_add_up_are_found() -> None:
    case = Case()
    case.witness.on_stats(pool_stats(submitted=3, completed=2))

    assert case.broken() == ["the counters added up"]


def test_counter_that_falls_is_found() -> None:
    case = Case()
    case.witness.on_stats(pool_stats(submitted=3, completed=3))
    case.witness.on_stats(pool_stats(submitted=2, completed=2))

    assert case.broken() == ["the counters added up"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01 10:00:00,123 INFO gave up: broker entered FATAL state, too many start retries too quickly",
        "2026-01-01 10:00:00,123 WARN exited: worker-1 (terminated by SIGSEGV; not expected)",
    ],
)
def test_supervisord_that_gives_up_and_program_that_crashes_are_found(text: str) -> None:
    case = Case()
    case.logs.on_supervisord_line(text.encode())

    assert case.broken() == ["no program failed by itself"]


@pytest.mark.parametrize("text", [b'{"event":"worker_failed"}', b"Traceback (most recent call last):"])
def test_program_that_raises_is_found(text: bytes) -> None:
    case = Case()
    case.logs.on_other_line("worker-0", text)

    assert case.broken() == ["no program failed by itself"]


def test_broker_that_ends_itself_is_found_unless_its_sockets_were_removed() -> None:
    case = Case()
    case.log("broker_failed", 3.0, reason="removed")
    assert case.broken() == ["no program failed by itself"]

    case.inject("sockets-removed", at=1.0)
    assert case.broken() == []


def test_frozen_process_that_nobody_ended_is_found() -> None:
    case = Case()
    case.inject("broker-freeze-for-good", 5).troubles.append("nobody ended it")

    assert case.broken() == ["frozen programs were replaced, and none outlived supervisord"]


@pytest.mark.parametrize(("died_at", "is_late"), [(12.9, False), (13.1, True)])
@pytest.mark.parametrize("is_broker_absent", [False, True])
def test_frozen_worker_that_the_broker_left_to_others_is_found(
    died_at: float,
    is_late: bool,  # noqa: FBT001
    is_broker_absent: bool,  # noqa: FBT001
) -> None:
    case = Case()
    case.log("worker_ready", 0.5, worker="worker-0", pid=7)
    case.inject("worker-freeze-for-good", 7, at=1.0).hits[0].died_at = died_at
    case.lose(7, at=3.0, reason="silence")
    if is_broker_absent:
        case.inject("broker-freeze", 5, at=6.0, until=7.0)

    promise = "frozen programs were replaced, and none outlived supervisord"
    assert case.broken() == ([promise] if is_late and not is_broker_absent else [])


def test_pool_that_is_not_whole_and_processes_that_are_left_over_are_found() -> None:
    case = Case(ending=Ending(9.0, ("worker-1 is not in the pool",), ("worker-2 (pid 5)",)))

    assert case.broken() == ["the pool was whole again", "no process was left over"]


@pytest.mark.parametrize(("late_kb", "is_flat"), [(60_000, True), (90_000, False)])
def test_memory_that_grows_is_found(late_kb: int, is_flat: bool) -> None:  # noqa: FBT001
    case = Case(growth=[Growth("broker", 50_000, late_kb)])

    assert case.broken() == ([] if is_flat else ["memory stayed flat"])


def test_witness_keeps_a_bounded_number_of_execs_and_those_are_the_longest() -> None:
    witness = Witness([Truth(OK, "")], [])
    count = LONGEST_KEPT + 10

    for n in range(count):
        witness.on_submitted(Submitted(ALICE, n, 0.0, task_id(ALICE, n), 0, 0.0, None))
        witness.on_resolved(Resolved(ALICE, n, float(n), OK, "", ""))

    kept = sorted(life.took_s for life in witness.longest)
    assert (len(kept), kept[0], kept[-1]) == (LONGEST_KEPT, 10.0, count - 1.0)


def states(case: Case) -> dict[str, str]:
    return {each.promise: each.state for each in case.verdict()}


def test_run_in_which_nothing_happened_has_tried_no_promise() -> None:
    assert set(states(Case()).values()) == {NOT_TRIED}


def test_load_without_a_fault_tries_only_what_needs_none() -> None:
    case = Case()
    case.run(1)
    case.assign(1)
    case.witness.on_stats(pool_stats(submitted=1, completed=1))

    assert {promise for promise, state in states(case).items() if state == "ok"} == {
        "no exec called back twice", "every result was right", "errors came only where a fault explains them",
        "every exec resolved in time", "every exec resolved", "tasks were assigned in the order of submission",
        "the counters added up",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        ("client-kill", "a killed client's queued tasks were dropped"),
        ("worker-freeze-for-good", "frozen programs were replaced, and none outlived supervisord"),
        ("supervisord-kill", "frozen programs were replaced, and none outlived supervisord"),
        ("worker-kill", "no worker was called lost without a cause"),
        ("broker-kill", "no program failed by itself"),
        ("raise", "the pool was whole again"),
        ("raise", "no process was left over"),
    ],
)
def test_promise_is_tried_only_by_its_fault(kind: str, promise: str) -> None:
    case = Case()
    assert states(case)[promise] == NOT_TRIED
    injection = case.inject(kind, 7, client="victim-0")
    assert states(case)[promise] == "ok"

    injection.missed = "there was no process to hit"
    assert states(case)[promise] == NOT_TRIED


def test_loss_and_pause_try_their_promises() -> None:
    case = Case()
    case.log("worker_ready", 0.5, worker="worker-0", pid=7)
    case.inject("worker-kill", 7)
    case.lose(7)
    case.log("broker_paused", 4.0)

    assert states(case)["each loss was noticed in time"] == "ok"
    assert states(case)["a pause of the broker was not taken for silence"] == "ok"


def test_run_that_was_cut_short_has_not_tried_its_end() -> None:
    case = Case(ending=None)
    case.run(1)
    case.inject("worker-kill", 7)

    found = states(case)
    assert {
        found[each] for each in ("every exec resolved", "the pool was whole again", "no process was left over")
    } == {NOT_TRIED}


def test_broken_promise_is_broken_however_little_was_tried() -> None:
    case = Case(ending=Ending(9.0, ("worker-1 is not in the pool",)))

    assert states(case)["the pool was whole again"] == BROKEN


def test_abort_is_a_programs_own_failure_unless_its_module_was_made_to() -> None:
    case = Case()
    line_of_supervisord = b"1970-01-01 00:00:03,000 WARN exited: worker-1 (terminated by SIGABRT; not expected)"
    case.logs.on_supervisord_line(line_of_supervisord)
    (died,) = case.logs.of("died by itself")
    assert case.broken() == ["no program failed by itself"]

    case.inject("import-abort", at=died.at - 1, until=died.at + 4)
    assert "no program failed by itself" not in case.broken()
