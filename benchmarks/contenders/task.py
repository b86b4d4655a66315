"""The task as every Python peer runs it: our transform, on what the caller gave."""

from benchmarks.loads import POLLED_AT, Race
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace


def transform(race: Race) -> TransformedRace:
    """What a service hands to an executor."""
    return transform_race(RaceData.parse(race), polled_at=POLLED_AT)
