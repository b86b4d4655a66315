"""The pools of a race in cents: which kind of pool goes to which field, and how complete the report is."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from racepool.races.money import cents, exact_sum
from racepool.races.parts import Dividend, Pools, TotePool
from racepool.races.race import RaceData

_WIN, _PLACE, _OTHER = "win_pool_total", "place_pool_total", "other_pool_total"
_POOL: Final = "pool"
_FIELDS_OF_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    _WIN: ("win",),
    _PLACE: ("place",),
    "quinella_pool_total": ("quinella",),
    "trifecta_pool_total": ("trifecta",),
    "exacta_pool_total": ("exacta",),
    "first4_pool_total": ("first4", "firstfour"),
    "multi_leg_pool_total": (
        *("double", "runningdouble", "dailydouble", "treble", "quadrella", "earlyquadrella", "quaddie", "earlyquaddie"),
        *("place6", "pick6", "big6"),
    ),
}
_FIELD_OF_TYPE: Final = {kind: field for field, kinds in _FIELDS_OF_TYPES.items() for kind in kinds}
_LONGEST_CACHED: Final = 100  # characters of a product type; the cache must not keep megabytes of a hostile one
_NOTHING: Final = dict.fromkeys((*_FIELDS_OF_TYPES, _OTHER), 0)


class PoolReport(NamedTuple):
    """The pools that were read from one list."""

    read: Mapping[str, int]  # for each pool field of RacePools that was read, its cents
    extracted: int  # how many pools were read
    unrecognised: tuple[str, ...] = ()  # product types that have no field; each once, in its first spelling

    @property
    def field_count(self) -> int:
        """How many pool fields are not 0."""
        return sum(map(bool, self.read.values()))

    @property
    def quality_score(self) -> int:
        """From 100 down to 0: -5 for each unrecognised type, -30 if the win or the place pool is 0 or missing."""
        incomplete = not (self.read.get(_WIN) and self.read.get(_PLACE))
        return max(0, 100 - 5 * len(self.unrecognised) - 30 * incomplete)

    def race_pools(self, race_id: str) -> dict[str, Any]:
        """The fields of RacePools."""
        return {
            "race_id": race_id,
            **_NOTHING,
            **self.read,
            "total_race_pool": sum(self.read.values()),
            "currency": "NZD",
            "data_quality_score": self.quality_score,
            "extracted_pools": self.extracted,
        }


_NO_REPORT: Final = PoolReport({}, 0)


class MoneyPools(NamedTuple):
    """The two pools of which each entrant gets a share, in cents; None if a pool is not told, which is not 0."""

    win: int | None
    place: int | None

    @property
    def are_unknown(self) -> bool:
        """Whether the poll tells neither of them."""
        return self.win is None and self.place is None


def read_pools(race: RaceData) -> tuple[PoolReport | None, MoneyPools]:
    """The pools of the race for the result, and the two from which the entrants' amounts are computed.

    The report comes from the first of `race.tote_pools`, `race.dividends` and `race.pools` that has a number; it is
    None if none has. Each of the two money pools comes from the first of `race.pools`, `race.tote_pools` and
    `race.dividends` that has a number for it.
    """
    held, tote = _of_held_pools(race.pools), _of_tote_pools(race.tote_pools)
    told = {**tote.read, **held.read}
    is_whole = tote.extracted and _WIN in told and _PLACE in told
    paid = _NO_REPORT if is_whole else _of_dividends(race.dividends)
    told = {**paid.read, **told}
    report = tote if tote.extracted else paid if paid.extracted else held
    return report if report.extracted else None, MoneyPools(told.get(_WIN), told.get(_PLACE))


def _of_held_pools(pools: Pools | None) -> PoolReport:
    if pools is None:
        return _NO_REPORT
    held = {_WIN: pools.win_pool, _PLACE: pools.place_pool}
    read = {field: cents(exact_sum([dollars])) for field, dollars in held.items() if dollars is not None}
    return PoolReport(read, len(read))


def _of_tote_pools(pools: Iterable[TotePool]) -> PoolReport:
    """Adds up the pools of each field. A pool without a total counts as not read."""
    return _added_up([(_kind(pool.product_type), pool.product_type or "", pool.total) for pool in pools])


def _of_dividends(dividends: Iterable[Dividend]) -> PoolReport:
    """The pools that pay dividends. A pool may come several times, interim and final: its largest size counts.

    A product whose name does not begin with `Pool` is not paid from a pool, and is ignored.
    """
    largest: dict[str, tuple[str, float]] = {}
    for dividend in dividends:
        product, size = _kind(dividend.product_name), dividend.pool_size
        if product.startswith(_POOL) and size is not None:
            kind = product.removeprefix(_POOL).replace("firstfour", "first4")  # two spellings of one pool
            name, known = largest.get(kind, (dividend.product_name or "", 0.0))
            largest[kind] = (name, max(known, size))
    return _added_up([(kind, name, size) for kind, (name, size) in largest.items()])


def _added_up(pools: Iterable[tuple[str, str, float | None]]) -> PoolReport:
    """Adds up pools of (kind, name as written, dollars)."""
    dollars: dict[str, list[float]] = {}
    unrecognised: dict[str, str] = {}
    for kind, name, total in pools:
        if total is not None:
            field = _FIELD_OF_TYPE.get(kind, _OTHER)
            dollars.setdefault(field, []).append(total)
            if field is _OTHER:
                unrecognised.setdefault(kind, name)
    read = {field: cents(exact_sum(numbers)) for field, numbers in dollars.items()}
    return PoolReport(read, sum(map(len, dollars.values())), tuple(unrecognised.values()))


def _kind(product_type: str | None) -> str:
    text = product_type or ""
    return _kind_of_short(text) if len(text) <= _LONGEST_CACHED else _kind_of(text)


def _kind_of(text: str) -> str:
    return "".join(text.casefold().replace("-", " ").split())


_kind_of_short = lru_cache(maxsize=256)(_kind_of)  # the tote has a few dozen types, and each poll repeats them
