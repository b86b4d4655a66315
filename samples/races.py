"""Invents races: what does not change from poll to poll. The same Random always makes the same races."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from random import Random
from typing import Final, Literal
from uuid import UUID

NZST: Final = timezone(timedelta(hours=12), "NZST")

_FIRST_WORDS: Final = (
    "Biscuit",
    "Crooked",
    "Seventh",
    "Velvet",
    "Paper",
    "Thunder",
    "Quiet",
    "Marmalade",
    "Distant",
    "Tin",
)
_SECOND_WORDS: Final = (
    "Telescope",
    "Umbrella",
    "Ferryman",
    "Lantern",
    "Sonata",
    "Compass",
    "Kettle",
    "Harbour",
    "Parade",
)
_GIVEN_NAMES: Final = (
    "Alba",
    "Corin",
    "Dorrie",
    "Ewart",
    "Fenna",
    "Hollis",
    "Ione",
    "Jory",
    "Linnet",
    "Merrin",
    "Tamsin",
)
_FAMILY_NAMES: Final = (
    "Applewick",
    "Brockhollow",
    "Dunmarsh",
    "Fernyhough-Lees",
    "Gorseley",
    "Larkmead",
    "Otterby",
    "Thornquist",
)
_PLACES: Final = ("Fernlight Park", "Mosswater", "Kōwhai Bend", "Upper Tussock", "Lampwick Sands")
_CLUB_WORDS: Final = ("Plate", "Handicap", "Stakes", "Sprint", "Trophy")
_COLOURS: Final = ("White", "Navy blue", "Cerise", "Emerald green", "Gold", "Black", "Orange", "Pale blue")
_PATTERNS: Final = ("hoops", "diamonds", "stripes", "spots", "quarters", "sash")

Code = Literal["T", "H"]


@dataclass(frozen=True, slots=True)
class Runner:
    """One horse that was entered."""

    entrant_id: str
    runner_number: int
    name: str
    barrier: int | str  # a number; for mobile starts of harness races a row and a number, such as Fr1
    jockey: str
    trainer: str
    silk_colours: str
    weight: float  # how much of the money it draws, relative to the others
    is_scratched: bool = False
    is_late_scratched: bool = False


@dataclass(frozen=True, slots=True)
class Race:
    """One race and its field."""

    event_id: str
    meeting_id: str
    meeting_name: str
    name: str
    number: int
    code: Code
    start: datetime  # UTC
    runners: tuple[Runner, ...]
    win_pool_dollars: int  # at the start
    unusual_pools: tuple[str, ...] = ()  # product types beside the common ones

    @property
    def start_nz(self) -> datetime:
        """The start as a clock at the course shows it, in winter."""
        return self.start.astimezone(NZST)


def invented_id(rng: Random) -> str:
    """A random UUID of version 4, as the NZ TAB uses them."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def invented_race(rng: Random, *, number: int = 1, code: Code = "T", field: int = 10, scratched: int = 0) -> Race:
    """A race on 17 July 2025, the first at 12:15 New Zealand time, then one every 35 minutes."""
    first = datetime.combine(date(2025, 7, 17), time(12, 15), NZST).astimezone(UTC)
    place = _PLACES[0] if code == "T" else _PLACES[1]
    return Race(
        event_id=invented_id(rng),
        meeting_id=invented_id(Random(place)),  # noqa: S311  # one meeting for all races of a day; no secret
        meeting_name=place,
        name=f"{rng.choice(_FAMILY_NAMES)} {rng.choice(_CLUB_WORDS)} {rng.choice((1200, 1400, 1600, 2000, 2100))}",
        number=number,
        code=code,
        start=first + timedelta(minutes=35 * (number - 1)),
        runners=tuple(_runners(rng, code, field, scratched)),
        win_pool_dollars=rng.randrange(8_000, 60_000),
    )


def _runners(rng: Random, code: Code, field: int, scratched: int) -> list[Runner]:
    names = rng.sample([f"{first} {second}" for first in _FIRST_WORDS for second in _SECOND_WORDS], field)
    barriers = rng.sample(range(1, field + 1), field)
    out = set(rng.sample(range(field), scratched))
    return [
        Runner(
            entrant_id=invented_id(rng),
            runner_number=index + 1,
            name=name,
            barrier=barriers[index] if code == "T" else _mobile_barrier(barriers[index]),
            jockey=_person(rng),
            trainer=_person(rng),
            silk_colours=f"{rng.choice(_COLOURS)}, {rng.choice(_COLOURS).lower()} {rng.choice(_PATTERNS)}",
            weight=rng.uniform(0.2, 1.0) ** 2,
            is_scratched=index in out,
            is_late_scratched=index == max(out, default=None),
        )
        for index, name in enumerate(names)
    ]


def _mobile_barrier(barrier: int) -> str:
    """The barrier of a mobile start: nine horses start in the front row, the others in the second row."""
    return f"Fr{barrier}" if barrier <= 9 else f"Sr{barrier - 9}"


def _person(rng: Random) -> str:
    return f"{rng.choice(_GIVEN_NAMES)} {rng.choice(_FAMILY_NAMES)}"
