"""The task as every Python peer runs it: our transform, on what the caller gave."""

from benchmarks.loads import POLLED_AT, Race
from protocol.race import RaceData
from protocol.transformed_race import TransformedRace
from worker.transform import transform_race


def transform(race: Race) -> TransformedRace:
    """What a service hands to an executor."""
    return transform_race(RaceData.parse(race), polled_at=POLLED_AT)
