"""The races that every contender gets, as files that a driver in any language can read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

Race: TypeAlias = "dict[str, Any] | bytes"
"""A race as a service has it: a normalised race as a mapping, or the body of a response as it was fetched."""

POLLED_AT: Final = datetime(2025, 7, 17, 0, 12, tzinfo=UTC)
NORMALISED, RAW, MIXED = LOADS = ("normalised", "raw", "mixed")
ONE_LARGE_IN = 10


@dataclass(frozen=True)
class Load:
    """Races that take turns, and the money in the result of each, by which the results are checked.

    Attributes:
        money: per race, the sum of `win_pool_amount` over its money-flow records, in cents.
    """

    races: Sequence[Race]
    money: Sequence[int]

    def race(self, number: int) -> Race:
        """The race of the task with this number."""
        return self.races[number % len(self.races)]

    def money_of(self, numbers: Iterable[int]) -> int:
        """The money that the results of the tasks with these numbers must add up to."""
        return sum(self.money[number % len(self.money)] for number in numbers)


def money_in(result: Mapping[str, Any]) -> int:
    """The money in a result, given as JSON."""
    return sum(record["win_pool_amount"] for record in result["money_flow_records"])


def result_path(folder: Path, name: str, index: int) -> Path:
    """The file of the expected result of a race."""
    return folder / f"{name}-{index}.result.json"


def race_path(folder: Path, name: str, index: int) -> Path:
    """The file of a race."""
    return folder / f"{name}-{index}.json"


def read_loads(folder: Path) -> dict[str, Load]:
    """The loads that were written to this folder."""
    normalised, raw = _read(folder, NORMALISED), _read(folder, RAW)
    order = [(raw if turn % ONE_LARGE_IN == ONE_LARGE_IN - 1 else normalised, turn) for turn in range(8 * ONE_LARGE_IN)]
    picked = [(load, turn % len(load.races)) for load, turn in order]
    mixed = Load([load.races[index] for load, index in picked], [load.money[index] for load, index in picked])
    return {NORMALISED: normalised, RAW: raw, MIXED: mixed}


def _read(folder: Path, name: str) -> Load:
    count = len(list(folder.glob(f"{name}-*.result.json")))
    bodies = [race_path(folder, name, index).read_bytes() for index in range(count)]
    results = [json.loads(result_path(folder, name, index).read_bytes()) for index in range(count)]
    return Load(bodies if name == RAW else [json.loads(body) for body in bodies], [*map(money_in, results)])
