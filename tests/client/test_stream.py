"""What a stream decides: when to take, to submit again, to wait. The test resolves the futures."""

from math import inf

import pytest

from racepool.client.future import PoolFuture
from racepool.client.stream import MAX_RETRY_S, RETRY_S, End, HandOver, Stream, Take, Wait
from racepool.client.task import UNIT_BYTES
from racepool.client.window import WINDOW_UNITS
from racepool.protocol.errors import BacklogFullError, InvalidRaceError, PoolClosedError, TaskTimeoutError
from racepool.protocol.parcel import Parcel
from racepool.races.race import RaceInput

START, PROMPT_S = 4, 15.0
FULL = BacklogFullError("the broker's backlog is full", 9, 9)
WAITED = TaskTimeoutError("task 1", state="queued", timeout_s=60)


class Pool:
    """Takes parcels, and resolves their futures when the test says so."""

    def __init__(self) -> None:
        self.futures: list[PoolFuture[str]] = []
        self.refusal: Exception | None = None
        self.stream = Stream(self.pack, self.submit, start=START, prompt_s=PROMPT_S)

    def pack(self, race: RaceInput) -> Parcel:
        if race == b"bad":
            raise InvalidRaceError([("", "is bad")])
        assert isinstance(race, bytes)
        return Parcel(b"", race)

    def submit(self, _parcel: Parcel) -> PoolFuture[str]:
        if self.refusal is not None:
            raise self.refusal
        self.futures.append(PoolFuture())
        return self.futures[-1]

    def take(self, count: int, now: float = 0.0, race: bytes = b"race") -> None:
        for _ in range(count):
            assert self.stream.next_step(now) == Take()
            self.stream.take(race, now)

    def handed_over(self, now: float) -> list[int]:
        """The indices of all finished races; the consumer releases each one at once."""
        indices = []
        while isinstance(step := self.stream.next_step(now), HandOver):
            self.stream.release(step.task)
            indices.append(step.task.index)
        return indices


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_no_more_races_are_taken_than_have_a_place(pool: Pool) -> None:
    pool.take(START)

    assert pool.stream.next_step(0.0) == Wait(inf)


def test_result_is_handed_over_before_another_race_is_taken(pool: Pool) -> None:
    pool.take(2)
    pool.futures[1].resolve("second", None)

    step = pool.stream.next_step(0.1)

    assert isinstance(step, HandOver)
    assert (step.task.index, step.future.result()) == (1, "second")
    assert pool.stream.next_step(0.1) == Take()


def test_result_that_nobody_has_consumed_keeps_its_place(pool: Pool) -> None:
    pool.take(START)
    for future in pool.futures:
        future.resolve("late consumer", None)
    for _ in range(START):
        assert isinstance(pool.stream.next_step(0.1), HandOver)

    for _ in range(START):  # the limit has grown by as many
        pool.take(1)
    assert pool.stream.next_step(0.1) == Wait(inf)


def test_places_grow_with_each_answer_up_to_the_window(pool: Pool) -> None:
    for answered in range(WINDOW_UNITS + 10):
        pool.take(1)
        pool.futures[-1].resolve("quick", None)
        assert pool.handed_over(0.1) == [answered]

    assert pool.stream.limit == WINDOW_UNITS


def test_places_do_not_grow_with_answers_that_took_long(pool: Pool) -> None:
    pool.take(1)
    pool.futures[0].resolve("slow", None)

    assert pool.handed_over(PROMPT_S + 0.1) == [0]
    assert pool.stream.limit == START


def test_large_races_take_no_more_memory_than_the_window(pool: Pool) -> None:
    pool.stream.limit = WINDOW_UNITS

    pool.take(3, race=bytes(WINDOW_UNITS // 3 * UNIT_BYTES))

    assert pool.stream.next_step(0.0) == Wait(inf)
    pool.futures[0].resolve("a small result", None)
    assert pool.handed_over(0.1) == [0]
    assert pool.stream.next_step(0.1) == Take()


def test_large_races_keep_all_workers_busy() -> None:
    pool = Pool()
    pool.stream = Stream(pool.pack, pool.submit, start=6, least=5, prompt_s=PROMPT_S)

    pool.take(5, race=bytes(WINDOW_UNITS * UNIT_BYTES))

    assert pool.stream.next_step(0.0) == Wait(inf)


def test_race_that_is_answered_but_not_consumed_takes_a_place_and_no_memory(pool: Pool) -> None:
    pool.take(3, race=bytes(WINDOW_UNITS // 3 * UNIT_BYTES))
    assert pool.stream.next_step(0.0) == Wait(inf)
    pool.futures[0].resolve("a small result", None)

    assert isinstance(pool.stream.next_step(0.1), HandOver)
    assert pool.stream.next_step(0.1) == Take()


def test_refused_race_is_submitted_again_and_nothing_is_taken_meanwhile(pool: Pool) -> None:
    pool.take(1)
    pool.futures[0].resolve(None, FULL)

    assert pool.stream.next_step(0.1) == Wait(0.1 + RETRY_S)
    assert pool.stream.next_step(0.1 + RETRY_S) == Take()
    assert len(pool.futures) == 2
    pool.futures[1].resolve("after all", None)
    assert pool.handed_over(0.2) == [0]


def test_refused_races_come_in_their_order_and_each_time_later(pool: Pool) -> None:
    pool.take(4)
    for future in reversed(pool.futures):
        future.resolve(None, FULL)

    assert pool.stream.next_step(0.0) == Wait(RETRY_S)
    assert pool.stream.limit == START // 2
    assert pool.stream.next_step(RETRY_S) == Wait(inf)
    assert len(pool.futures) == 4 + 2  # two are out again, two wait for their places
    pool.futures[4].resolve("first", None)
    pool.futures[5].resolve("second", None)
    assert pool.handed_over(RETRY_S) == [0, 1]


def test_backlog_that_stays_full_is_asked_ever_more_seldom(pool: Pool) -> None:
    pool.take(1)
    now, gaps = 0.0, []
    for _ in range(6):
        pool.futures[-1].resolve(None, FULL)
        step = pool.stream.next_step(now)
        assert isinstance(step, Wait)
        gaps.append(round(step.until - now, 6))
        now = step.until
        pool.stream.next_step(now)

    assert gaps == [0.05, 0.1, 0.2, 0.4, MAX_RETRY_S, MAX_RETRY_S]
    assert pool.stream.limit == 1


def test_answer_makes_the_next_refusal_wait_as_briefly_as_the_first(pool: Pool) -> None:
    pool.take(1)
    pool.futures[0].resolve(None, FULL)
    assert pool.stream.next_step(0.0) == Wait(RETRY_S)
    pool.stream.next_step(RETRY_S)
    pool.futures[1].resolve("after all", None)
    assert pool.handed_over(1.0) == [0]

    pool.take(1, now=1.0)
    pool.futures[2].resolve(None, FULL)

    assert pool.stream.next_step(1.0) == Wait(1.0 + RETRY_S)


def test_client_that_holds_all_it_may_is_tried_again(pool: Pool) -> None:
    pool.refusal = FULL
    pool.take(1)
    assert pool.stream.next_step(0.0) == Wait(RETRY_S)
    pool.refusal = None

    assert pool.stream.next_step(RETRY_S) == Take()
    assert len(pool.futures) == 1


def test_race_that_waited_behind_others_of_its_stream_waits_on(pool: Pool) -> None:
    pool.take(2, now=0.0)
    pool.futures[0].resolve("slow", None)
    assert pool.handed_over(59.0) == [0]
    pool.futures[1].resolve(None, WAITED)

    assert isinstance(pool.stream.next_step(60.0), Wait)
    assert pool.stream.next_step(61.0) == Take()
    assert len(pool.futures) == 3


def test_race_that_waited_for_nothing_at_all_has_failed(pool: Pool) -> None:
    pool.take(2)
    pool.futures[1].resolve(None, WAITED)

    assert pool.handed_over(60.0) == [1]


def test_races_that_waited_in_vain_together_have_all_failed(pool: Pool) -> None:
    pool.take(START)
    for future in pool.futures:
        future.resolve(None, WAITED)

    assert pool.handed_over(60.0) == list(range(START))


def test_race_that_cannot_be_packed_is_no_answer_for_those_that_wait(pool: Pool) -> None:
    pool.take(1)
    pool.stream.take(b"bad", 1.0)
    assert pool.handed_over(1.0) == [1]

    pool.futures[0].resolve(None, WAITED)

    assert pool.handed_over(60.0) == [0]


def test_race_that_ran_for_too_long_has_failed(pool: Pool) -> None:
    pool.take(2, now=0.0)
    pool.futures[0].resolve("slow", None)
    assert pool.handed_over(20.0) == [0]

    pool.futures[1].resolve(None, TaskTimeoutError("task 2", state="running", timeout_s=30))

    assert pool.handed_over(30.0) == [1]


def test_race_that_cannot_be_packed_is_a_result(pool: Pool) -> None:
    pool.take(1, race=b"bad")

    step = pool.stream.next_step(0.0)

    assert isinstance(step, HandOver)
    assert isinstance(step.future.exception(), InvalidRaceError)


def test_pool_that_was_closed_ends_the_stream(pool: Pool) -> None:
    pool.refusal = PoolClosedError("closed")

    with pytest.raises(PoolClosedError):
        pool.stream.take(b"race", 0.0)


def test_stream_ends_when_all_is_handed_over(pool: Pool) -> None:
    pool.take(2)
    pool.stream.end_input()

    assert pool.stream.next_step(0.0) == Wait(inf)
    pool.futures[0].resolve("first", None)
    pool.futures[1].resolve(None, FULL)
    assert pool.handed_over(0.0) == [0]
    assert pool.stream.next_step(RETRY_S) == Wait(inf)
    pool.futures[2].resolve("second", None)
    assert pool.handed_over(1.0) == [1]
    assert pool.stream.next_step(1.0) == End()


def test_input_that_is_waited_for_is_not_asked_again(pool: Pool) -> None:
    assert pool.stream.next_step(0.0, may_take=False) == Wait(inf)


def test_refused_race_is_submitted_again_while_the_input_is_waited_for(pool: Pool) -> None:
    pool.take(1)
    pool.futures[0].resolve(None, FULL)

    assert pool.stream.next_step(0.0, may_take=False) == Wait(RETRY_S)


def test_races_that_cannot_be_packed_leave_the_bounds_as_they_are(pool: Pool) -> None:
    for index in range(WINDOW_UNITS):
        pool.take(1, race=b"bad")
        assert pool.handed_over(0.0) == [index]

    pool.take(3, race=bytes(WINDOW_UNITS // 3 * UNIT_BYTES))

    assert pool.stream.next_step(0.0) == Wait(inf)


def test_race_that_somebody_cancelled_is_a_result(pool: Pool) -> None:
    """As shutdown(cancel_futures=True) does."""
    pool.take(1)
    pool.futures[0].cancel()

    step = pool.stream.next_step(0.0)

    assert isinstance(step, HandOver)
    assert step.future.cancelled()


def test_cancellation_takes_back_what_is_out(pool: Pool) -> None:
    pool.take(3)
    pool.futures[0].resolve("done", None)

    pool.stream.cancel()

    assert [future.cancelled() for future in pool.futures] == [False, True, True]
