from racepool.client.readiness import Readiness
from tests.commands.stats import pool, worker


def test_as_many_workers_are_awaited_as_the_broker_expects_or_as_were_asked_for() -> None:
    one, three = pool(worker("worker-0")), pool()

    assert [Readiness(None).is_reached(stats) for stats in (one, three)] == [False, True]
    assert [Readiness(1).is_reached(stats) for stats in (one, three)] == [True, True]
    assert [Readiness(4).is_reached(stats) for stats in (one, three)] == [False, False]


def test_shortage_is_told_by_the_last_answer() -> None:
    readiness = Readiness(None)
    assert (readiness.is_reached(None), readiness.shortage) == (False, None), "no broker, not even for no worker"

    readiness.is_reached(pool(worker("worker-0"), worker("worker-1")))
    readiness.is_reached(pool(worker("worker-0")))
    readiness.is_reached(None)

    assert readiness.shortage == "only 1 of 3 workers"


def test_no_worker_at_all_is_ready_when_a_broker_has_answered() -> None:
    assert not Readiness(0).is_reached(None)
    assert Readiness(0).is_reached(pool())
