"""The pools of a race in cents: which kind of pool goes to which field, and how complete the report is."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from racepool.races.money import cents, exact_sum
from racepool.races.parts import Pools, TotePool
from racepool.races.race import RaceData

_FIELDS_OF_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "win_pool_total": ("win",),
    "place_pool_total": ("place",),
    "quinella_pool_total": ("quinella",),
    "trifecta_pool_total": ("trifecta",),
    "exacta_pool_total": ("exacta",),
    "first4_pool_total": ("first4", "firstfour"),
    "multi_leg_pool_total": (
        *("double", "runningdouble", "treble", "quadrella", "earlyquadrella", "quaddie", "earlyquaddie"),
        *("place6", "pick6", "big6"),
    ),
}
_OTHER: Final = "other_pool_total"
_FIELD_OF_TYPE: Final = {kind: field for field, kinds in _FIELDS_OF_TYPES.items() for kind in kinds}
_NOTHING: Final = dict.fromkeys((*_FIELDS_OF_TYPES, _OTHER), 0)


class PoolReport(NamedTuple):
    """The pools that were read."""

    totals: Mapping[str, int]  # for each pool field of RacePools, its cents; 0 if no such pool was read
    extracted: int  # how many pools were read
    unrecognised: tuple[str, ...]  # product types that have no field; each once, in its first spelling

    @property
    def field_count(self) -> int:
        """How many pool fields are not 0."""
        return sum(map(bool, self.totals.values()))

    @property
    def quality_score(self) -> int:
        """From 100 down to 0: -5 for each unrecognised type, -30 if the win or the place pool is 0 or missing."""
        incomplete = not (self.totals["win_pool_total"] and self.totals["place_pool_total"])
        return max(0, 100 - 5 * len(self.unrecognised) - 30 * incomplete)

    def race_pools(self) -> dict[str, Any]:
        """The fields of RacePools."""
        return {
            **self.totals,
            "total_race_pool": sum(self.totals.values()),
            "currency": "NZD",
            "data_quality_score": self.quality_score,
            "extracted_pools": self.extracted,
        }


class MoneyPools(NamedTuple):
    """The two pools of which each entrant gets a share, in cents."""

    win: int
    place: int


def report_pools(race: RaceData) -> PoolReport | None:
    """The pools of the race, for the result.

    They are the tote's, `race.tote_pools`. If that is empty, they are the win and place pools that the service keeps,
    `race.pools`. If that tells neither, there is no report: None.
    """
    if race.tote_pools:
        return _of_tote_pools(race.tote_pools)
    return _of_held_pools(race.pools) if race.pools and _is_given(race.pools) else None


def money_pools(race: RaceData, report: PoolReport | None) -> MoneyPools:
    """The win and place pools from which the entrants' amounts are computed, in cents.

    They are those that the service keeps, `race.pools`; if that tells neither, those of the report. A pool that is
    missing counts as 0.
    """
    if race.pools and _is_given(race.pools):
        report = _of_held_pools(race.pools)
    return (
        MoneyPools(report.totals["win_pool_total"], report.totals["place_pool_total"]) if report else MoneyPools(0, 0)
    )


def _is_given(pools: Pools) -> bool:
    """Whether win or place is told. If both are null, the object is a placeholder, and the tote's pools count."""
    return pools.win_pool is not None or pools.place_pool is not None


def _of_held_pools(pools: Pools) -> PoolReport:
    held = {"win_pool_total": pools.win_pool, "place_pool_total": pools.place_pool}
    read = {field: cents(exact_sum([dollars])) for field, dollars in held.items() if dollars is not None}
    return PoolReport({**_NOTHING, **read}, len(read), ())


def _of_tote_pools(pools: Iterable[TotePool]) -> PoolReport:
    """Adds up the pools of each field. A pool without a total counts as not read."""
    dollars: dict[str, list[float]] = {}
    unrecognised: dict[str, str] = {}
    for pool in pools:
        if pool.total is not None:
            kind = _kind(pool.product_type)
            field = _FIELD_OF_TYPE.get(kind, _OTHER)
            dollars.setdefault(field, []).append(pool.total)
            if field is _OTHER:
                unrecognised.setdefault(kind, pool.product_type or "")
    totals = {field: cents(exact_sum(numbers)) for field, numbers in dollars.items()}
    return PoolReport({**_NOTHING, **totals}, sum(map(len, dollars.values())), tuple(unrecognised.values()))


def _kind(product_type: str | None) -> str:
    return "".join((product_type or "").casefold().replace("-", " ").split())
