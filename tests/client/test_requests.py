"""`exec` and `transform_race` take the same `polled_at` and `previous`, and refuse the same ones in the same words."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from racepool.client.requests import packed
from racepool.protocol.errors import InvalidRaceError
from racepool.races.race import RaceData
from racepool.races.transform import transform_race

NOW = datetime(2026, 1, 31, 1, 2, 3, tzinfo=UTC)
RACE = {"id": "r", "name": "Cup", "status": "open", "race_date_nz": "2026-01-31", "start_time_nz": "12:00"}
ROW = {"race_id": "r", "entrant_id": "a", "win_pool_amount": 1, "place_pool_amount": 1}


def by_exec(**arguments: Any) -> object:  # noqa: ANN401
    return packed(RACE, arguments["polled_at"], arguments.get("previous"), 10_000)


def by_transform(**arguments: Any) -> object:  # noqa: ANN401
    return transform_race(RaceData.parse(RACE), **arguments)


WAYS = pytest.mark.parametrize("act", [by_exec, by_transform])


def refusal(act: Callable[..., object], **arguments: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    with pytest.raises(InvalidRaceError) as refused:
        act(**arguments)
    return [(error.path, error.message) for error in refused.value.errors]


@WAYS
@pytest.mark.parametrize(
    "polled_at",
    ["2026-01-31T01:02:03Z", "", 0, 1_769_821_323, None, date(2026, 1, 31), NOW.replace(tzinfo=None), NOW.timetz()],
    ids=repr,
)
def test_what_is_no_instant_is_refused(act: Callable[..., object], polled_at: object) -> None:
    rule = "must be a timezone-aware datetime, such as datetime.now(UTC)"

    assert refusal(act, polled_at=polled_at) == [("polled_at", rule)]


@WAYS
@pytest.mark.parametrize(
    "polled_at",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
    ids=["before", "after"],
)
def test_instant_beyond_the_calendar_is_refused(act: Callable[..., object], polled_at: datetime) -> None:
    assert refusal(act, polled_at=polled_at) == [("polled_at", "must lie between the years 1 and 9999 in UTC")]


@WAYS
@pytest.mark.parametrize(
    ("previous", "path"),
    [
        (5, "previous"),
        (object(), "previous"),
        (NOW, "previous"),
        ("text", "previous"),
        (b"\xff", "previous"),
        ("5", "previous"),
        ("[" * 100, "previous"),
        ({"race_id": "r"}, "previous"),
        ({"race_id": "r", "baseline": {"a": 5}}, "previous.baseline.a"),
        ({"race_id": "r", "baseline": {"a": [2**63, 0]}}, "previous.baseline.a"),
        ([5], "previous.0"),
        ([None], "previous.0"),
        (["text"], "previous.0"),
        ([[1, 2]], "previous.0"),
        ([ROW | {"win_pool_amount": "1"}], "previous.0.win_pool_amount"),
        ([ROW | {"win_pool_amount": -1}], "previous.0.win_pool_amount"),
        ([ROW | {"entrant_id": b"a"}], "previous.0.entrant_id"),
        ([ROW | {"polling_timestamp": "noon"}], "previous.0.polling_timestamp"),
        ([ROW | {"race_id": None}], "previous.0.race_id"),
    ],
)
def test_what_is_no_earlier_poll_is_refused(act: Callable[..., object], previous: object, path: str) -> None:
    [(told, rule)] = refusal(act, polled_at=NOW, previous=previous)

    assert told == path
    assert rule


@pytest.mark.parametrize("race", [RACE, b"{}", "{}", None, 5])
def test_the_transform_takes_a_parsed_race_only(race: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidRaceError, match="must be a RaceData, as "):
        transform_race(race, polled_at=NOW)
