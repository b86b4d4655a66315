"""`exec` and `RaceData.parse` take the same values in a mapping, and refuse the same ones in the same words."""

import collections
import enum
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from numbers import Integral
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from racepool.protocol.errors import InvalidRaceError
from racepool.races.payloads import pack_request, unpack_request
from racepool.races.race import RaceData, valid_race

NOW = datetime(2026, 1, 31, 1, 2, 3, tzinfo=UTC)
ID = UUID(int=7)


class Status(enum.Enum):
    OPEN = "open"


class Kept(str):
    """A text of a class of its own, as numpy's and SQLAlchemy's are."""

    __slots__ = ()


def by_parse(race: Any) -> RaceData:  # noqa: ANN401
    return RaceData.parse(race)


def by_exec(race: Any) -> RaceData:  # noqa: ANN401
    """As a task goes: packed by the client, unpacked and validated by a worker."""
    return valid_race(unpack_request(pack_request(race, NOW, None).payload()).race)


WAYS = pytest.mark.parametrize("read", [by_parse, by_exec])


def race(**fields: Any) -> dict[str, Any]:  # noqa: ANN401
    whole = {"id": "r", "name": "Cup", "status": "open", "race_date_nz": "2026-01-31", "start_time_nz": "12:00"}
    return whole | {"entrants": [entrant()]} | fields


def entrant(**fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"entrantId": "a", "runnerNumber": 1} | fields


class Whole:
    """As a whole number of numpy: registered as Integral, and no int."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value

    __index__ = __int__


Integral.register(Whole)


@WAYS
@pytest.mark.parametrize(
    ("given", "same"),
    [
        (race(entrants=[entrant(fixedWinOdds=Decimal("2.5"))]), race(entrants=[entrant(fixedWinOdds=2.5)])),
        (race(entrants=[entrant(runnerNumber=Decimal(3))]), race(entrants=[entrant(runnerNumber=3)])),
        (race(entrants=[entrant(barrier=Decimal(3))]), race(entrants=[entrant(barrier=3)])),
        (race(entrants=[entrant(fixedWinOdds=Fraction(5, 2))]), race(entrants=[entrant(fixedWinOdds=2.5)])),
        (race(entrants=[entrant(barrier=Whole(4))]), race(entrants=[entrant(barrier=4)])),
        (race(id=ID), race(id=str(ID))),
        (race(race_date_nz=date(2026, 1, 31), start_time_nz=time(12)), race(start_time_nz="12:00:00")),
        (race(meeting={"date": datetime(2026, 1, 31, 9, tzinfo=UTC)}), race(meeting={"date": "2026-01-31"})),
        (race(status=Status.OPEN), race()),
        (race(name=Kept("Cup")), race()),
        (race(entrants=(entrant(),)), race()),
        (race(entrants=collections.deque([entrant()])), race()),
        (race(entrants={"a": entrant()}.values()), race()),
        (race(entrants=[MappingProxyType(entrant())]), race()),
        (collections.ChainMap(race()), race()),
        (MappingProxyType(race()), race()),
        (collections.OrderedDict(race()), race()),
        (race(entrants=RaceData.parse(race()).entrants), race()),
        (race(extra={"at": NOW, 1: ID}), race()),
    ],
    ids=range(19),
)  # fmt: skip
def test_value_of_a_database_or_of_python_is_taken(read: Callable[[Any], RaceData], given: Any, same: Any) -> None:  # noqa: ANN401
    assert read(given) == RaceData.parse(same)


@WAYS
@pytest.mark.parametrize(
    ("given", "path", "rule"),
    [
        (race(name={1}), "name", "cannot be packed: set is no value of JSON"),
        (race(entrants=[entrant(), entrant(name=object())]), "entrants.1.name", "cannot be packed: object is no"),
        (race(entrants=(entrant() for _ in range(2))), "entrants", "cannot be packed: generator is no value of JSON"),
        (race(extra={"deep": [b"", 1j]}), "extra.deep.1", "cannot be packed: complex is no value of JSON"),
        (race(entrants=[entrant(runnerNumber=2**70)]), "entrants.0.runnerNumber", "must be 1000000000 or less"),
        (race(entrants=[entrant(fixedWinOdds=Fraction(10**400))]), "entrants.0.fixedWinOdds", "must be a finite"),
        (race(extra=["\ud800"]), "extra.0", "must be valid Unicode text"),
        (race(name=b"Cup"), "name", "must be text"),
        (race(entrants=[entrant(fixedWinOdds=Decimal("nan"))]), "entrants.0.fixedWinOdds", "must be a finite"),
        (race(entrants=[entrant(fixedWinOdds="2.5")]), "entrants.0.fixedWinOdds", "must be a finite"),
        (race(advertised_start=NOW), "advertised_start", "must be a finite"),
        (race(race_date_nz=NOW), "race_date_nz", "must be a calendar date"),
        (race(id=7), "id", "must be text"),
    ],
    ids=range(13),
)  # fmt: skip
def test_value_that_json_lacks_is_refused_with_its_path(
    read: Callable[[Any], RaceData],
    given: Any,  # noqa: ANN401
    path: str,
    rule: str,
) -> None:
    with pytest.raises(InvalidRaceError) as refused:
        read(given)

    [error] = refused.value.errors
    assert (error.path, error.message[: len(rule)]) == (path, rule)


@pytest.mark.parametrize("kind", ["int64", "uint8", "float32", "float64"])
def test_number_of_numpy_is_a_number(kind: str) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    number = getattr(numpy, kind)(3)
    given = race(entrants=[entrant(runnerNumber=number, barrier=number, fixedWinOdds=number)])

    assert (
        by_exec(given)
        == by_parse(given)
        == by_parse(race(entrants=[entrant(runnerNumber=3, barrier=3, fixedWinOdds=3)]))
    )
