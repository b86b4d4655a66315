"""The races that every contender is given, as files that drivers in any language read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

Race: TypeAlias = "dict[str, Any] | bytes"
"""What a service holds: a normalised race as a mapping, or a response's body as it was fetched."""

POLLED_AT: Final = datetime(2025, 7, 17, 0, 12, tzinfo=UTC)
NORMALISED, RAW, MIXED = LOADS = ("normalised", "raw", "mixed")
ONE_LARGE_IN = 10


@dataclass(frozen=True)
class Load:
    """Races to be cycled through, and the money in each one's result, by which the caller's use of it is checked.

    Attributes:
        money: per race, the sum of `win_pool_amount` over its money-flow records, in cents.
    """

    races: Sequence[Race]
    money: Sequence[int]

    def race(self, number: int) -> Race:
        """The race of a task that has this number."""
        return self.races[number % len(self.races)]

    def money_of(self, numbers: Iterable[int]) -> int:
        """What the results of tasks that have these numbers must add up to."""
        return sum(self.money[number % len(self.money)] for number in numbers)


def money_in(result: Mapping[str, Any]) -> int:
    """The sum by which a result is used, of a result as JSON."""
    return sum(record["win_pool_amount"] for record in result["money_flow_records"])


def result_path(folder: Path, name: str, index: int) -> Path:
    """Where the expected result of a race is."""
    return folder / f"{name}-{index}.result.json"


def race_path(folder: Path, name: str, index: int) -> Path:
    """Where a race is."""
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
