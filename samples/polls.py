"""Invents what changes from poll to poll: the instant, the status, pools that grow, holds that shift."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final

from samples.races import Race, Runner

_LAST_POLL: Final = timedelta(seconds=45)  # after the start
_NEAR: Final = timedelta(minutes=5)  # before the start: a poll every 15 s; earlier, one every minute
_COMMON_POOLS: Final = {"Win": 1.0, "Place": 0.45, "Quinella": 0.55, "Trifecta": 0.85, "FirstFour": 0.5, "Exacta": 0.1}
_MULTI_LEG_POOLS: Final = {"EarlyQuadrella": 0.8, "Running Double": 0.2}


@dataclass(frozen=True, slots=True)
class TrackerEntry:
    """One entry of the money tracker, in whole percent."""

    entrant_id: str
    hold: int
    bet: int


@dataclass(frozen=True, slots=True)
class Poll:
    """What the tote says of the race at one instant."""

    at: datetime
    status: str
    pools: dict[str, float]  # dollars by product type
    tracker: tuple[TrackerEntry, ...]
    win_odds: dict[str, float]  # the tote's odds, by entrant


def poll_instants(race: Race, count: int) -> list[datetime]:
    """The last `count` instants at which a service would poll, ending shortly after the start."""
    instants = [race.start + _LAST_POLL]
    while len(instants) < count:
        is_near = race.start - instants[-1] < _NEAR
        instants.append(instants[-1] - timedelta(seconds=15 if is_near else 60))
    return instants[::-1]


def polls(race: Race, instants: list[datetime], rng: Random) -> Iterator[Poll]:
    """One poll for each instant, in their order; pools never shrink."""
    runners = [runner for runner in race.runners if not runner.is_scratched]
    weights = {runner.entrant_id: runner.weight for runner in runners}
    for at in instants:
        weights = {entrant_id: weight * rng.uniform(0.93, 1.07) for entrant_id, weight in weights.items()}
        total = sum(weights.values())
        holds = {entrant_id: round(100 * weight / total) for entrant_id, weight in weights.items()}
        odds = {entrant_id: round(max(1.1, 0.83 * total / weight), 1) for entrant_id, weight in weights.items()}
        yield Poll(at, _status(race, at), _pools(race, at), tuple(_tracker(race.runners, holds, rng)), odds)


def _status(race: Race, at: datetime) -> str:
    since_start = (at - race.start).total_seconds()
    if since_start < 0:
        return "Open"
    if since_start < 30:
        return "Closed"
    return "Interim" if since_start < 45 else "Final"


def _pools(race: Race, at: datetime) -> dict[str, float]:
    """Half of the money comes in the last minutes; none comes after the start."""
    minutes_left = max(0.0, (race.start - at).total_seconds() / 60)
    dollars = race.win_pool_dollars * 4 / (4 + minutes_left)
    parts = {**_COMMON_POOLS, **_MULTI_LEG_POOLS, **dict.fromkeys(race.unusual_pools, 0.07)}
    return {product_type: round(dollars * part, 2) for product_type, part in parts.items()}


def _tracker(runners: tuple[Runner, ...], holds: dict[str, int], rng: Random) -> list[TrackerEntry]:
    """Splits each hold into several entries and mixes all entries; zero entries follow at the end."""
    entries = [
        TrackerEntry(entrant_id, part, max(0, part + rng.randint(-1, 1)))
        for entrant_id, hold in holds.items()
        for part in _split(hold, rng)
    ]
    rng.shuffle(entries)
    return entries + [TrackerEntry(runner.entrant_id, 0, 0) for _ in range(3) for runner in runners]


def _split(hold: int, rng: Random) -> Iterator[int]:
    while hold > 0:
        part = rng.randint(1, max(1, (hold + 1) // 2))
        yield part
        hold -= part
