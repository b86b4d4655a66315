"""The amounts of the last poll of a race, from which the increments of the next poll count."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from racepool.protocol.errors import InvalidRaceError
from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace

Previous: TypeAlias = "TransformedRace | Iterable[MoneyFlowRecord | Mapping[str, Any]] | PreviousAmounts | None"

LARGEST_AMOUNT: Final = 2**63 - 1  # cents; what msgpack and an integer column can hold


@dataclass(frozen=True, slots=True)
class PreviousAmounts:
    """The amounts on each entrant at the previous poll of one race; empty before the first poll.

    Attributes:
        race_id: the race; None if there are no records, so that no race is named.
        amounts: for each entrant id, its win and its place amount, in cents.
    """

    race_id: str | None = None
    amounts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @staticmethod
    def of(previous: Previous) -> "PreviousAmounts":
        """The amounts of the previous poll, in any form in which a caller kept that poll.

        Args:
            previous: the TransformedRace of the previous poll; or its money-flow records; or rows with the keys
                `race_id`, `entrant_id`, `win_pool_amount` and `place_pool_amount`; or None before the first poll.

        Raises:
            InvalidRaceError: `previous` is of another type, a record is broken, the records are of two races, or an
                entrant has two records.
        """
        match previous:
            case None:
                return PreviousAmounts()
            case PreviousAmounts():
                return previous
            case TransformedRace():
                return PreviousAmounts(previous.race_id, _of_records(previous.money_flow_records).amounts)
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
                return PreviousAmounts(race_id, {key: _pair(key, pair) for key, pair in amounts.items()})
            case _:
                raise InvalidRaceError([("previous", "must be a race id and the amounts of its entrants")])


_RECORD_KEYS: Final = ("race_id", "entrant_id", "win_pool_amount", "place_pool_amount")
_RECORD_RULE: Final = f"must be a money-flow record, or a row with {', '.join(_RECORD_KEYS)}"
_AMOUNT_RULE: Final = f"must be a whole number of cents from 0 to {LARGEST_AMOUNT}"


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_AMOUNT


def _pair(entrant_id: object, pair: object) -> tuple[int, int]:
    match pair:
        case [int() as win, int() as place] if isinstance(entrant_id, str) and _is_amount(win) and _is_amount(place):
            return win, place
        case _:
            raise InvalidRaceError(
                [(f"previous.{entrant_id}", f"must be two amounts of an entrant; each {_AMOUNT_RULE}")]
            )


def _of_records(records: object) -> PreviousAmounts:
    if not isinstance(records, Iterable):
        rule = f"must be a TransformedRace or money-flow records, but is a {type(records).__name__}"
        raise InvalidRaceError([("previous", rule)])
    race_id: str | None = None
    amounts: dict[str, tuple[int, int]] = {}
    broken: list[tuple[str, str]] = []
    for index, record in enumerate(records):
        try:
            row: Any = vars(record) if isinstance(record, MoneyFlowRecord) else record
            values = [row[key] for key in _RECORD_KEYS]
        except (KeyError, IndexError, TypeError):  # a row of a database driver raises one of these for a missing key
            broken.append((f"previous.{index}", _RECORD_RULE))
            continue
        if faults := list(_faults(values, race_id, amounts)):
            broken += [(f"previous.{index}.{key}", rule) for key, rule in faults]
        else:
            race_id, entrant_id, win, place = values
            amounts[entrant_id] = (win, place)
    if broken:
        raise InvalidRaceError(broken)
    return PreviousAmounts(race_id, amounts)


def _faults(values: Sequence[object], race_id: str | None, seen: Container[str]) -> Iterator[tuple[str, str]]:
    record_race_id, entrant_id, win, place = values
    if not isinstance(record_race_id, str):
        yield "race_id", "must be text"
    elif race_id not in (None, record_race_id):
        yield "race_id", f"is {record_race_id!r}, but the records before are of race {race_id!r}"
    if not isinstance(entrant_id, str):
        yield "entrant_id", "must be text"
    elif entrant_id in seen:
        yield "entrant_id", f"{entrant_id!r} has a record already"
    if not _is_amount(win):
        yield "win_pool_amount", _AMOUNT_RULE
    if not _is_amount(place):
        yield "place_pool_amount", _AMOUNT_RULE
