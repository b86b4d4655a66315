"""Invents form guides. They fill most of a response, but the transform never reads them: only their shape is right."""

from random import Random
from typing import Any, Final

_TABLES: Final = (
    *("first_up", "second_up", "third_up", "track", "distance", "track_distance", "good", "soft", "heavy", "turf"),
    *("synthetic", "overall", "left_handed", "right_handed", "fresh_30", "fresh_90", "slow", "firm"),
)
_REMARKS: Final = (
    "Began well, settled near midfield, and held its ground over the final stages.",
    "Slow to begin, raced wide without cover, and had little left at the turn.",
    "Led from the outset, was joined near the 400m, and fought on for third.",
)


def form_guide(rng: Random, last_starts: int) -> dict[str, Any]:
    """The keys of one runner's form; each start is about 700 bytes of JSON."""
    return {
        "age": rng.randint(3, 8),
        "sex": rng.choice("gmf"),
        "allowance_weight": "",
        "last_twenty_starts": "".join(str(rng.randint(0, 9)) for _ in range(min(last_starts, 20))),
        "weight": {"allocated": f"{rng.randint(108, 120) / 2}", "total": f"{rng.randint(108, 120) / 2}"},
        "speedmap": {"settling_lengths": rng.randint(0, 9)},
        **{table: _counts(rng) for table in _TABLES},
        "last_starts": [_start(rng) for _ in range(last_starts)],
        "win_p": f"{rng.randint(0, 40)}%",
        "spr": rng.randint(500, 5000),
    }


def _counts(rng: Random) -> dict[str, int]:
    starts = rng.randint(0, 12)
    return {
        "number_of_starts": starts,
        "number_of_wins": starts // 5,
        "number_of_placings": starts // 3,
        "number_of_seconds": starts // 7,
        "number_of_thirds": starts // 9,
        "winning_distance": 0,
    }


def _start(rng: Random) -> dict[str, str]:
    return {
        "barrier": str(rng.randint(1, 14)),
        "days_since": str(rng.randint(7, 60)),
        "distance": str(rng.choice((1200, 1400, 1600, 2000))),
        "finish": str(rng.randint(1, 14)),
        "margin": f"{rng.uniform(0, 9):.2f}",
        "number_of_runners": str(rng.randint(8, 14)),
        "class": f"Rating {rng.randint(55, 75)} Benchmark",
        "prize_money": str(rng.randrange(8_000, 40_000, 500)),
        "starting_price": f"{rng.uniform(2, 40):.2f}",
        "time_ran": f"1:{rng.uniform(20, 40):05.2f}",
        "margin_1st_2nd": "Neck",
        "track_condition": rng.choice(("Good4", "Soft6", "Heavy9", "Synthetic")),
        "weight_carried": f"{rng.randint(108, 120) / 2}",
        "date": f"{rng.randint(1, 28):02}/{rng.randint(1, 6):02}/2025",
        "last_600": f"0.{rng.uniform(33, 39):05.2f}",
        "track_surface": "Grass",
        "track_direction": "Left Handed",
        "stipes": rng.choice(_REMARKS),
    }
