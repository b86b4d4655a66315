from datetime import timedelta

from racepool.commands.exporter.chronicle import EVENTS, NAMES, Absence, Chronicle
from tests.commands.exporter.building import NOON, event, pool_stats, worker

LATER = NOON + timedelta(seconds=1)


def kinds(chronicle: Chronicle) -> list[str]:
    return [each.event for each in chronicle.events]


def test_each_event_is_kept_once() -> None:
    chronicle = Chronicle()
    lost, back = event(), event("worker_restarted", reason=None)

    chronicle.on_answer(pool_stats(recent_events=[lost]), NOON)
    chronicle.on_answer(pool_stats(recent_events=[lost, back]), LATER)

    assert kinds(chronicle) == ["worker_lost", "worker_restarted"]


def test_events_outlive_the_broker_that_told_them() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(recent_events=[event()]), NOON)

    chronicle.on_silence("nobody there", NOON)
    chronicle.on_answer(pool_stats(broker={"epoch": "bb"}, recent_events=[event("task_requeued")]), LATER)

    assert kinds(chronicle) == ["worker_lost", "broker_away", "broker_started", "task_requeued"]


def test_broker_that_only_stood_still_is_back_and_not_another() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(), NOON)

    chronicle.on_silence("nobody there", NOON)
    chronicle.on_answer(pool_stats(), LATER)

    assert kinds(chronicle) == ["broker_away", "broker_back"]
    assert chronicle.absence is None


def test_first_broker_takes_over_from_none() -> None:
    chronicle = Chronicle()
    chronicle.on_silence("nobody there", NOON)

    chronicle.on_answer(pool_stats(), LATER)

    assert kinds(chronicle) == ["broker_away", "broker_back"]


def test_restart_that_fell_between_two_questions_is_told() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(), NOON)

    chronicle.on_answer(pool_stats(broker={"epoch": "bb"}), LATER)

    assert kinds(chronicle) == ["broker_started"]


def test_absence_is_since_the_first_silence_for_the_latest_reason() -> None:
    chronicle = Chronicle()

    chronicle.on_silence("nobody there", NOON)
    chronicle.on_silence("something else", LATER)

    assert chronicle.absence == Absence(NOON, "something else")
    assert kinds(chronicle) == ["broker_away"]


def test_worker_that_was_there_is_missing_until_all_are() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(), NOON)

    chronicle.on_answer(pool_stats(workers=[worker("worker-0"), worker("worker-2")]), LATER)
    assert chronicle.missing == ["worker-1"]

    chronicle.on_answer(pool_stats(), LATER)
    assert chronicle.missing == []


def test_worker_that_another_name_has_replaced_is_not_missing_any_more() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(workers=[worker("a"), worker("b"), worker("c")]), NOON)
    chronicle.on_answer(pool_stats(workers=[worker("a"), worker("b"), worker("d")]), LATER)

    chronicle.on_answer(pool_stats(workers=[worker("a"), worker("b")]), LATER)

    assert chronicle.missing == ["d"]


def test_same_event_of_another_broker_is_kept_too() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(recent_events=[event()]), NOON)

    chronicle.on_answer(pool_stats(broker={"epoch": "bb"}, recent_events=[event()]), LATER)

    assert kinds(chronicle) == ["worker_lost", "broker_started", "worker_lost"]


def test_no_more_workers_are_missing_than_should_be_there() -> None:
    chronicle = Chronicle()
    chronicle.on_answer(pool_stats(), NOON)

    chronicle.on_answer(pool_stats(workers=[worker("new-0"), worker("new-1")]), LATER)

    assert len(chronicle.missing) == 1


def test_past_is_bounded() -> None:
    chronicle = Chronicle()
    many = [event(at=NOON + timedelta(seconds=second)) for second in range(EVENTS)]
    chronicle.on_answer(pool_stats(recent_events=many), NOON)

    chronicle.on_answer(pool_stats(recent_events=[event("task_requeued")], broker={"epoch": "bb"}), LATER)
    passing = [worker(f"passing-{number}") for number in range(NAMES)]
    chronicle.on_answer(pool_stats(workers=passing, expected_workers=2 * NAMES, broker={"epoch": "bb"}), LATER)

    assert len(chronicle.events) == EVENTS
    assert kinds(chronicle)[-1] == "task_requeued"
    assert len(chronicle._names) <= NAMES
