import copy
import json
from collections.abc import Iterator
from datetime import date
from typing import Any, cast

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from racepool.protocol.errors import FieldError, InvalidRaceError
from racepool.races.event_response import race_fields
from racepool.races.fields import LARGEST_INSTANT, LARGEST_NUMBER, LARGEST_WHOLE
from racepool.races.race import _SHAPES, RaceData, RaceInput

VALID: dict[str, Any] = {
    "id": "r1",
    "name": "Cup",
    "status": "open",
    "race_date_nz": "2025-07-17",
    "start_time_nz": "12:50",
    "advertised_start": 1752713400,
    "race_number": 1,
    "entrants": [{"entrantId": "e1", "runnerNumber": 1, "name": "x", "barrier": "Fr1", "fixedWinOdds": 1.5}],
    "pools": {"winPool": 1, "placePool": 2.5},
    "tote_pools": [{"product_type": "Win", "total": 5}],
    "money_tracker": {"entrants": [{"entrant_id": "e1", "hold_percentage": 1, "bet_percentage": 2}]},
    "meeting": {"meeting": "m", "date": "2025-07-17"},
}
EVENT: dict[str, Any] = {
    "header": {},
    "data": {
        "race": {
            "event_id": "r1",
            "description": "Cup",
            "status": "Open",
            "race_date_nz": "2025-07-17",
            "start_time_nz": "12:50",
        },
        "runners": [{"entrant_id": "e1", "runner_number": 1, "name": "x", "barrier": 1, "odds": {"fixed_win": 1.5}}],
        "money_tracker": {"entrants": [{"entrant_id": "e1", "hold_percentage": 1}]},
        "tote_pools": [{"product_type": "Win", "total": 5}],
    },
}


def paths_in(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from paths_in(part, (*path, key))


PLACES = [(VALID, path) for path in paths_in(VALID)] + [(EVENT, path) for path in paths_in(EVENT)]
NAMES = sorted({str(key) for _, path in PLACES for key in path})

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308, -0.0])
leaves = st.none() | st.booleans() | numbers | st.text() | st.sampled_from(["open", "2025-07-17", "12:50", "Fr1"])
values = st.recursive(
    leaves,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(NAMES), parts, max_size=5),
    max_leaves=15,
)
odd_leaves = st.binary() | st.just("\ud800") | st.tuples(leaves) | st.frozensets(st.integers(), max_size=2)


def outcome(race: object) -> RaceData | list[FieldError]:
    try:
        return RaceData.parse(cast("RaceInput", race))
    except InvalidRaceError as error:
        return error.errors


def with_value_at(race: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(race)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@given(st.binary() | st.text())
def test_any_text_is_a_race_or_an_invalid_race(body: bytes | str) -> None:
    outcome(body)


@given(st.dictionaries(st.sampled_from(NAMES), values | odd_leaves))
def test_any_mapping_is_a_race_or_an_invalid_race(race: dict[str, Any]) -> None:
    outcome(race)


@given(st.sampled_from(PLACES), values | odd_leaves)
def test_any_value_at_any_place_is_a_race_or_an_invalid_race(
    place: tuple[dict[str, Any], tuple[Any, ...]], value: object
) -> None:
    outcome(with_value_at(*place, value))


@given(st.sampled_from(PLACES), values)
def test_json_and_what_it_decodes_to_have_the_same_outcome(
    place: tuple[dict[str, Any], tuple[Any, ...]], value: object
) -> None:
    body = json.dumps(with_value_at(*place, value))

    assert outcome(body.encode()) == outcome(body) == outcome(json.loads(body))


@given(st.sampled_from(PLACES), st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text())
def test_mapping_has_the_same_outcome_after_msgpack(
    place: tuple[dict[str, Any], tuple[Any, ...]], value: object
) -> None:
    race = with_value_at(*place, value)

    assert outcome(msgpack.unpackb(msgpack.packb(race))) == outcome(race)


@given(
    st.sampled_from([path for path in paths_in(VALID) if path[-1] not in {"barrier", "entrants"}]),
    st.integers(-5, 2**53),
)
def test_whole_number_counts_the_same_with_and_without_a_point(path: tuple[Any, ...], number: int) -> None:
    assert outcome(with_value_at(VALID, path, number)) == outcome(with_value_at(VALID, path, float(number)))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


amounts = maybe(st.floats(0, LARGEST_NUMBER) | st.integers(0, LARGEST_NUMBER))
flags = maybe(st.booleans())
texts = maybe(st.text())
entrants = st.fixed_dictionaries(
    {"entrantId": st.text(min_size=1), "runnerNumber": st.integers(1, LARGEST_WHOLE), "name": st.text()},
    optional={
        **dict.fromkeys(("fixedWinOdds", "fixed_place_odds", "poolWinOdds", "pool_place_odds"), amounts),
        **dict.fromkeys(("isScratched", "is_late_scratched", "favourite", "mover"), flags),
        **dict.fromkeys(("jockey", "trainerName", "silk_colours"), texts),
        "barrier": maybe(st.integers(0, LARGEST_WHOLE) | st.from_regex(r"\A[A-Z][a-z][0-9]{1,3}\Z")),
    },
)
entries = st.fixed_dictionaries(
    {}, optional={"entrant_id": texts, "hold_percentage": amounts, "betPercentage": amounts}
)
races = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1),
        "name": st.text(),
        "status": st.sampled_from(["open", "CLOSED", "Interim", "final", "abandoned"]),
        "race_date_nz": st.dates(min_value=date(1900, 1, 1)).map(str),
        "start_time_nz": st.times().map(lambda time: time.strftime("%H:%M:%S")) | st.just("23:59 NZDT"),
    },
    optional={
        "advertised_start": maybe(st.integers(0, LARGEST_INSTANT)),
        "race_number": maybe(st.integers(0, LARGEST_WHOLE)),
        "meeting_id": texts,
        "entrants": maybe(st.lists(entrants, max_size=3, unique_by=lambda entrant: str(entrant["entrantId"]))),
        "pools": maybe(
            st.fixed_dictionaries({}, optional=dict.fromkeys(("winPool", "place_pool", "totalPool"), amounts))
        ),
        "tote_pools": maybe(
            st.lists(st.fixed_dictionaries({}, optional={"product_type": texts, "total": amounts}), max_size=3)
        ),
        "money_tracker": maybe(st.fixed_dictionaries({}, optional={"entrants": maybe(st.lists(entries, max_size=3))})),
        "meeting": maybe(
            st.fixed_dictionaries({}, optional=dict.fromkeys(("meeting", "name", "date", "country"), texts))
        ),
    },
)


@given(races)
def test_race_is_the_same_after_its_own_json_and_its_own_mapping(given_race: dict[str, Any]) -> None:
    race = RaceData.parse(given_race)

    assert RaceData.parse(race.model_dump_json().encode()) == race
    assert RaceData.parse(race.model_dump_json()) == race
    assert RaceData.parse(race.model_dump()) == race
    assert RaceData.parse(race.model_dump(mode="json")) == race


EVENT_TEXT = json.dumps(EVENT | {"ignored": {"form_guide": ["\u0101", 1.5e3, None, {"deep": [[]]}]}}, indent=1).encode()


@given(st.integers(0, len(EVENT_TEXT) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_changed_text_has_the_same_outcome_as_by_pydantic_alone(at: int, put: bytes, taken: int) -> None:
    """Broken text may be accepted only in what is ignored, such as an unknown key whose bytes are no Unicode."""
    body = EVENT_TEXT[:at] + put + EVENT_TEXT[at + taken :]

    seen = outcome(body)

    try:
        shape = _SHAPES.validate_json(body)
    except ValidationError:
        is_ignored = at >= EVENT_TEXT.index(b'"ignored"') - 3 or body.decode(errors="ignore").encode() != body
        is_ignored |= body == b"\xef\xbb\xbf" + EVENT_TEXT  # the byte order mark is skipped
        assert isinstance(seen, list) or is_ignored
    else:
        assert seen == (shape if isinstance(shape, RaceData) else RaceData.model_validate(race_fields(shape)))


@given(st.sampled_from([path for path in paths_in(EVENT) if path[0] == "data" and isinstance(path[-1], str)]), values)
def test_of_a_key_that_stands_twice_the_last_one_counts(path: tuple[Any, ...], value: object) -> None:
    key = json.dumps(path[-1]) + ": "
    first = json.dumps(with_value_at(EVENT, path, "the one that is put first"))
    marked = json.dumps("the one that is put first")
    of_it: Any = EVENT
    for step in path:
        of_it = of_it[step]
    body = first.replace(key + marked, f"{key}{json.dumps(value)}, {key}{json.dumps(of_it)}")

    assert body != first
    assert outcome(body) == outcome(EVENT)
