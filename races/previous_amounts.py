"""The amounts from which the increments of the next poll count, in every form in which a caller may keep them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from racepool.protocol.errors import InvalidRaceError
from racepool.protocol.nesting import TooDeepError, read_json
from racepool.races.row_values import INSTANT_RULE, field_of, instant, plain
from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace

Previous: TypeAlias = (
    "TransformedRace | Mapping[str, Any] | str | bytes | Iterable[MoneyFlowRecord | Mapping[str, Any]] "
    "| PreviousAmounts | None"
)

LARGEST_AMOUNT: Final = 2**63 - 1  # cents; what msgpack and an integer column can hold


@dataclass(frozen=True, slots=True)
class PreviousAmounts:
    """The amounts on each entrant of one race, as of the last poll that told them; empty before the first such poll.

    Attributes:
        race_id: the race; None if there are no records, so that no race is named.
        amounts: for each entrant id, its win and its place amount, in cents.
    """

    race_id: str | None = None
    amounts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @staticmethod
    def of(previous: Previous) -> "PreviousAmounts":
        """The amounts, from any form in which a caller kept the earlier polls.

        Args:
            previous: the TransformedRace of the previous poll; or its dump, or its JSON; or money-flow records, or rows
                with the keys `race_id`, `entrant_id`, `win_pool_amount` and `place_pool_amount` (in cents), of one poll
                or of several: for each entrant, the one with the latest `polling_timestamp` counts; or None before the
                first poll. Ids may be UUIDs, and amounts may be whole Decimals, as database drivers return them.

        Returns:
            The amounts of each entrant, in cents.

        Raises:
            InvalidRaceError: `previous` is of another type, a record is broken, the records are of two races, or an
                entrant has two records at the same instant.
        """
        match previous:
            case None:
                return PreviousAmounts()
            case PreviousAmounts():
                return previous
            case TransformedRace():
                return _of_baseline(previous.race_id, previous.baseline)
            case str() | bytes() | bytearray() | memoryview():  # type: ignore[unreachable]  # callers
                return _of_json(previous)
            case Mapping():
                return _of_dump(previous)
            case _:
                return _of_records(previous)

    def to_wire(self) -> list[Any]:
        """The amounts as values that msgpack can pack: `[race_id, {entrant_id: [win, place]}]`."""
        return [self.race_id, {entrant_id: list(amounts) for entrant_id, amounts in self.amounts.items()}]

    @staticmethod
    def from_wire(wire: object) -> "PreviousAmounts":
        """Reads what `to_wire` wrote.

        Raises:
            InvalidRaceError: the value is anything else.
        """
        match wire:
            case [None | str() as race_id, dict() as amounts]:
                return PreviousAmounts(race_id, {key: _pair("previous", key, pair) for key, pair in amounts.items()})
            case _:
                raise InvalidRaceError([("previous", "must be a race id and the amounts of its entrants")])


_RECORD_KEYS: Final = ("race_id", "entrant_id", "win_pool_amount", "place_pool_amount")
_RECORD_RULE: Final = f"must be a money-flow record, or a row with {', '.join(_RECORD_KEYS)}"
AMOUNT_RULE: Final = f"must be a whole number of cents from 0 to {LARGEST_AMOUNT}"
_INSTANT: Final = "polling_timestamp"


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_AMOUNT


def _pair(path: str, entrant_id: object, pair: object) -> tuple[int, int]:
    match pair:
        case [int() as win, int() as place] if isinstance(entrant_id, str) and _is_amount(win) and _is_amount(place):
            return win, place
        case _:
            raise InvalidRaceError([(f"{path}.{entrant_id}", f"must be two amounts of an entrant; each {AMOUNT_RULE}")])


def _of_baseline(race_id: str, baseline: Mapping[str, object] | None) -> PreviousAmounts:
    pairs = (baseline or {}).items()
    return PreviousAmounts(race_id, {key: _pair("previous.baseline", key, pair) for key, pair in pairs})


def _of_json(text: str | bytes | bytearray | memoryview) -> PreviousAmounts:
    try:
        value = read_json(text if isinstance(text, str) else bytes(text))
    except TooDeepError as error:
        raise InvalidRaceError([("previous", str(error))]) from None
    except (TypeError, ValueError) as error:  # TypeError: a lone surrogate
        raise InvalidRaceError([("previous", f"is not JSON: {error}")]) from None
    if not isinstance(value, dict | list):
        raise InvalidRaceError([("previous", "must be the JSON of a TransformedRace, or of money-flow records")])
    return PreviousAmounts.of(value)


def _of_dump(dump: Mapping[str, Any]) -> PreviousAmounts:
    match dump:
        case {"race_id": str() as race_id, "baseline": None | Mapping() as baseline}:
            return _of_baseline(race_id, baseline)
        case _:
            rule = "must be a whole TransformedRace, with race_id and baseline; put a single record into a list"
            raise InvalidRaceError([("previous", rule)])


class _Row(NamedTuple):
    """A record or row, its values in the types of a MoneyFlowRecord if they are right."""

    race_id: object
    entrant_id: object
    win: object
    place: object
    polled_at: datetime | Literal[False] | None  # None: the row has none; False: it is not an instant

    @classmethod
    def of(cls, record: object) -> "_Row":
        """Reads a record, or a row of any kind that has these keys or attributes.

        Raises:
            LookupError, AttributeError: one is missing; which of them depends on the database driver.
        """
        row: Any = vars(record) if isinstance(record, MoneyFlowRecord) else record
        race_id, entrant_id, win, place = (plain(field_of(row, key)) for key in _RECORD_KEYS)
        try:
            told = field_of(row, _INSTANT)
        except (LookupError, AttributeError):
            told = None
        return cls(race_id, entrant_id, win, place, None if told is None else instant(told) or False)

    def faults(self, race_id: str | None) -> Iterator[tuple[str, str]]:
        """The broken rules, by key; `race_id` is that of the rows before."""
        if not isinstance(self.race_id, str):
            yield "race_id", "must be text"
        elif race_id not in (None, self.race_id):
            yield "race_id", f"is {self.race_id!r}, but the records before are of race {race_id!r}"
        if not isinstance(self.entrant_id, str):
            yield "entrant_id", "must be text"
        if not _is_amount(self.win):
            yield "win_pool_amount", AMOUNT_RULE
        if not _is_amount(self.place):
            yield "place_pool_amount", AMOUNT_RULE
        if self.polled_at is False:
            yield _INSTANT, INSTANT_RULE


def _of_records(records: object) -> PreviousAmounts:
    if not isinstance(records, Iterable):
        rule = f"must be a TransformedRace or money-flow records, but is a {type(records).__name__}"
        raise InvalidRaceError([("previous", rule)])
    race_id: str | None = None
    latest: dict[str, _Row] = {}
    broken: list[tuple[str, str]] = []
    for index, record in enumerate(records):
        try:
            row: Any = _Row.of(record)
        except (LookupError, AttributeError):
            broken.append((f"previous.{index}", _RECORD_RULE))
            continue
        faults = list(row.faults(race_id))
        other = None if faults else latest.get(row.entrant_id)
        if other and (row.polled_at is None or other.polled_at is None or row.polled_at == other.polled_at):
            faults.append(
                ("entrant_id", f"{row.entrant_id!r} has another record, and {_INSTANT} does not tell which is later")
            )
        broken += [(f"previous.{index}.{key}", rule) for key, rule in faults]
        if not faults:
            race_id = row.race_id
            if not other or other.polled_at < row.polled_at:
                latest[row.entrant_id] = row
    if broken:
        raise InvalidRaceError(broken)
    return PreviousAmounts(race_id, {entrant_id: (row.win, row.place) for entrant_id, row in latest.items()})  # type: ignore[misc]  # checked
