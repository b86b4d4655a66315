"""Which poll is next, with which previous amounts, without files, pool or clock."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.commands.replay.poll import PollEntry
from racepool.commands.replay.schedule import RETRY_S, Schedule, Turn
from tests.commands.replay.building import START, chains, failed, good


def turns(schedule: Schedule, now: float = 0.0) -> list[Turn]:
    """All turns that are possible now."""
    found = []
    while turn := schedule.next_turn(now):
        found.append(turn)
    return found


def names(found: list[Turn]) -> list[str]:
    return [f"{turn.poll.race_id}{turn.number}" for turn in found]


def test_of_each_race_one_poll_is_out_at_a_time() -> None:
    schedule = Schedule(chains(a=3, b=3), limit=10)

    assert names(turns(schedule)) == ["a0", "b0"]
    schedule.settle(good("b", 0, 100))
    assert names(turns(schedule)) == ["b1"]


def test_no_more_are_out_than_the_limit() -> None:
    schedule = Schedule(chains(a=1, b=1, c=1, d=1), limit=2)

    assert names(turns(schedule)) == ["a0", "b0"]
    schedule.settle(good("a", 0))
    assert names(turns(schedule)) == ["c0"]


def test_race_with_the_most_polls_left_goes_first() -> None:
    assert names(turns(Schedule(chains(a=1, b=3, c=2), limit=10))) == ["b0", "c0", "a0"]


def test_poll_counts_from_the_one_before_and_the_first_from_nothing() -> None:
    schedule = Schedule(chains(a=2), limit=1)
    (first,) = turns(schedule)
    schedule.settle(good("a", 0, 500, 300))
    (second,) = turns(schedule)

    assert first.previous is None
    assert second.previous is not None
    assert second.previous.race_id == "a"
    assert second.previous.amounts == {"a": (500, 7), "b": (300, 7)}


def test_poll_after_a_failed_one_counts_from_the_last_good_one() -> None:
    schedule = Schedule(chains(a=3), limit=1)
    turns(schedule)
    schedule.settle(good("a", 0, 500))
    turns(schedule)
    schedule.settle(failed("a", 1))
    (third,) = turns(schedule)

    assert third.previous is not None
    assert third.previous.amounts == {"a": (500, 7)}
    assert [(poll.path.name, reason) for poll, reason in schedule.failures] == [("a-1.json", "broke")]


def test_poll_without_money_is_one_to_count_from() -> None:
    schedule = Schedule(chains(a=3), limit=1, entries=[good("a", 0, 500), good("a", 1)])
    (third,) = turns(schedule)

    assert third.previous is not None
    assert third.previous.amounts == {}


def test_refused_poll_comes_again_later_with_fewer_beside_it() -> None:
    schedule = Schedule(chains(a=1, b=1, c=1, d=1), limit=4)
    assert len(turns(schedule, now=10.0)) == 4
    for race in "abcd":
        schedule.refuse(race, now=10.0)

    assert turns(schedule, now=10.0) == []
    assert schedule.retry_at == 10.0 + RETRY_S
    assert names(turns(schedule, now=schedule.retry_at)) == ["a0"]
    assert schedule.retry_at == float("inf")
    schedule.settle(good("a", 0))
    assert len(turns(schedule, now=11.0)) == 2


def test_refused_poll_still_counts_from_the_one_before() -> None:
    schedule = Schedule(chains(a=2), limit=1, entries=[good("a", 0, 500)])
    (first,) = turns(schedule)
    schedule.refuse("a", now=0.0)

    assert turns(schedule, now=1.0) == [first]


@pytest.mark.parametrize("entry", [good("a", 1), good("b", 0), good("a", 2)])
def test_entry_that_is_not_its_races_next_poll_is_refused(entry: PollEntry) -> None:
    with pytest.raises(ValueError, match="is not its next one"):
        Schedule(chains(a=2), limit=1, entries=[entry])


def test_answer_of_a_poll_that_is_not_out_is_refused() -> None:
    with pytest.raises(ValueError, match="is out"):
        Schedule(chains(a=1), limit=1).settle(good("a", 0))


def test_nothing_is_left_when_an_earlier_run_did_it_all() -> None:
    schedule = Schedule(chains(a=1, b=1), limit=1, entries=[good("a", 0), failed("b", 0)])

    assert schedule.is_done
    assert schedule.settled == 2
    assert schedule.next_turn(0.0) is None
    assert [poll.path.name for poll, _ in schedule.failures] == ["b-0.json"]


def test_races_are_written_by_their_start_as_last_known_and_by_their_id() -> None:
    later = START + timedelta(minutes=5)
    entries = [good("d", 0), good("c", 0), good("c", 1, start=later), good("b", 0), failed("a", 0)]

    schedule = Schedule(chains(a=1, b=1, c=2, d=1), limit=1, entries=entries)

    assert schedule.written_order() == ["b", "d", "c"]


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    limit=st.integers(1, 6),
    choices=st.lists(st.tuples(st.integers(0, 10), st.sampled_from(["good", "fails", "refused"])), max_size=60),
    stop=st.integers(0, 20),
)
def test_any_course_settles_each_poll_once_and_goes_on_from_anywhere(
    counts: list[int], limit: int, choices: list[tuple[int, str]], stop: int
) -> None:
    """Answers come in any order; after `stop` answers a new run continues."""
    day = chains(**{f"r{index}": count for index, count in enumerate(counts)})
    course = iter(choices)
    schedule = Schedule(day, limit)
    out: list[Turn] = []
    entries: list[PollEntry] = []
    last_good: dict[str, int] = {}
    now = 0.0
    while not schedule.is_done:
        if len(entries) == stop:
            schedule, out, stop = Schedule(day, limit, entries), [], -1
            continue
        now += 1.0
        out += turns(schedule, now)
        assert len({turn.poll.race_id for turn in out}) == len(out) <= limit
        where, what = next(course, (0, "good"))
        turn = out.pop(where % len(out))
        race, number = turn.poll.race_id, turn.number
        expected = {"a": (last_good[race], 7)} if race in last_good else None
        assert (turn.previous and turn.previous.amounts) == expected
        if what == "refused":
            schedule.refuse(race, now - 1.0)
            continue
        entry = good(race, number, 100 + number) if what == "good" else failed(race, number)
        if what == "good":
            last_good[race] = 100 + number
        schedule.settle(entry)
        entries.append(entry)

    assert sorted((entry.race_id, entry.number) for entry in entries) == [
        (race, number) for race, polls in sorted(day.items()) for number in range(len(polls))
    ]
    assert len(schedule.failures) == sum(entry.error is not None for entry in entries)
    assert set(schedule.written_order()) == set(last_good)
