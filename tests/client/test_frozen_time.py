"""Tasks of a service whose tests stop the clock, move it, or replace the functions of the module `time`."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import time_machine
from freezegun import freeze_time

from racepool import BrokerUnavailableError, TaskTimeoutError, ZmqPool
from tests.client.fake_broker import FakeBroker, nothing

BOUND_S = 15.0
Race = Callable[..., dict[str, Any]]
MakePool = Callable[..., ZmqPool]
Stop = Callable[[], AbstractContextManager[object]]


@contextmanager
def clocks_that_say(instant: float) -> Iterator[None]:
    with (
        patch.object(time, "monotonic", lambda: instant),
        patch.object(time, "time", lambda: instant),
        patch.object(time, "sleep", lambda _s: None),
    ):
        yield


@contextmanager
def a_clock_that_jumps_back() -> Iterator[None]:
    with time_machine.travel(4_000_000_000) as traveller:
        traveller.move_to(0)
        yield


stopped_clocks = pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda: freeze_time("2025-07-17 00:40:00"), id="freezegun"),
        pytest.param(lambda: freeze_time("1970-01-01"), id="freezegun, long ago"),
        pytest.param(lambda: time_machine.travel(0, tick=False), id="time-machine"),
        pytest.param(a_clock_that_jumps_back, id="time-machine, back by a century"),
        pytest.param(lambda: clocks_that_say(0.0), id="replaced by zero"),
        pytest.param(lambda: clocks_that_say(1e12), id="replaced by a far future"),
    ],
)


@pytest.mark.usefixtures("broker")
@stopped_clocks
def test_task_is_answered_while_the_clock_is_stopped(make_pool: MakePool, race: Race, stop: Stop) -> None:
    before = make_pool()
    before.exec(race(race_id="r1")).result(BOUND_S)

    with stop():
        before.exec(race(race_id="r2")).result(BOUND_S)
        make_pool().exec(race(race_id="r3")).result(BOUND_S)
    before.exec(race(race_id="r4")).result(BOUND_S)


@stopped_clocks
def test_timeouts_strike_while_the_clock_is_stopped(make_pool: MakePool, race: Race, stop: Stop) -> None:
    with stop():
        future = make_pool(connect_timeout=0.1).exec(race())
        with pytest.raises(BrokerUnavailableError):
            future.result(BOUND_S)


@stopped_clocks
def test_task_that_waits_for_a_lost_broker_times_out_while_the_clock_is_stopped(
    start_broker: Callable[..., FakeBroker], make_pool: MakePool, race: Race, stop: Stop
) -> None:
    broker, pool = start_broker(), make_pool(liveness=0.2)
    pool.exec(race()).result(BOUND_S)
    broker.on_submit = nothing
    broker.close()

    with stop():
        future = pool.exec(race(), queue_timeout_s=0.3)
        with pytest.raises(TaskTimeoutError):
            future.result(BOUND_S)
