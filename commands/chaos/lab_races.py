"""The races of a lab: invented, valid, the same for the same seed. Knows no transform."""

import json
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

LIGHT: Final = 24
HEAVY: Final = 6
RACES: Final = LIGHT + HEAVY
POLLED_AT: Final = datetime(2025, 7, 17, 0, 47, tzinfo=UTC)

_ENTRY_BYTES: Final = 75
_LIGHT_ENTRIES: Final = (20, 80)
_HEAVY_ENTRIES: Final = (50_000 // _ENTRY_BYTES, 400_000 // _ENTRY_BYTES)
_PRODUCTS: Final = ("Win", "Place", "Quinella", "Trifecta", "First4", "Running Double")


def lab_race(seed: int, index: int) -> dict[str, Any]:
    """The race of this index, normalised. From LIGHT on, races have 50 to 400 KB."""
    random = Random(f"{seed}/race/{index}")  # noqa: S311  # no secret
    runners = random.randint(6, 18)
    entries = random.randint(*(_LIGHT_ENTRIES if index < LIGHT else _HEAVY_ENTRIES))
    tracker = [
        {
            "entrant_id": f"entrant-{index}-{random.randrange(runners)}",
            "hold_percentage": round(random.uniform(0, 200 / entries), 4),
            "bet_percentage": round(random.uniform(0, 200 / entries), 4),
        }
        for _ in range(entries)
    ]
    return {
        "id": f"race-{index}",
        "name": f"Lab Stakes {index}",
        "status": random.choice(("open", "closed", "interim", "final")),
        "race_date_nz": "2025-07-17",
        "start_time_nz": f"12:{random.randint(30, 59)}:00",
        "race_number": 1 + index % 12,
        "meeting_id": f"meeting-{index % 3}",
        "entrants": [_entrant(random, index, number) for number in range(runners)],
        "tote_pools": [{"product_type": name, "total": round(random.uniform(0, 60_000), 2)} for name in _PRODUCTS],
        "money_tracker": {"entrants": tracker},
    }


def _entrant(random: Random, race: int, number: int) -> dict[str, Any]:
    return {
        "entrantId": f"entrant-{race}-{number}",
        "name": f"Kōwhai Runner {number + 1}",
        "runnerNumber": number + 1,
        "barrier": random.randint(1, 18),
        "isScratched": random.random() < 0.1,
        "fixedWinOdds": round(random.uniform(1.2, 60), 2),
        "poolWinOdds": round(random.uniform(1.2, 60), 2),
    }


def body(race: dict[str, Any]) -> bytes:
    """The race as JSON, as a service fetches it."""
    return json.dumps(race, ensure_ascii=False).encode()


def harmful(race: dict[str, Any], verb: str, argument: str, fault: int) -> dict[str, Any]:
    """The race with a harm in its name, see saboteur.py. A worker that survives the harm gets the race without it."""
    return race | {"name": f"chaos:{verb}:{argument}:{fault}:{race['name']}"}
