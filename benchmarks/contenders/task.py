"""The task that every Python peer runs: our transform, on a race as the caller gave it."""

from benchmarks.loads import POLLED_AT, Race
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace


def transform(race: Race) -> TransformedRace:
    """The function that a service gives to an executor."""
    return transform_race(RaceData.parse(race), polled_at=POLLED_AT)
