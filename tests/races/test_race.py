import gzip
import json
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import msgpack
import pytest
from pydantic import ValidationError

from racepool.protocol.errors import InvalidRaceError
from racepool.races.race import RaceData, RaceInput

REAL_DATA = Path(__file__).parents[2].parent / "shared" / "data"
NEITHER = "is neither a normalised race (id, name, status, ...) nor an NZ TAB event response (data)"
NUMBER = "must be a finite JSON number, not text or a boolean"
START = "must be a time of day as HH:MM or HH:MM:SS, optionally followed by NZST or NZDT"
NO_START = "is required, for advertised_start is not given"
DATE = "must be a calendar date as YYYY-MM-DD, from the year 1900 on"
BARRIER = "must be a whole number from 0 to 1000000000, or text with one in it such as Fr1"
BAD_BARRIERS: tuple[object, ...] = (-1, 1.5, True, [], 10**400)


def entrant(number: int = 1, /, **changes: object) -> dict[str, Any]:
    return {"entrantId": f"e{number}", "runnerNumber": number, "name": f"Horse {number}", **changes}


def normalised(**changes: object) -> dict[str, Any]:
    race = {"id": "r1", "name": "Cup", "status": "open", "race_date_nz": "2025-07-17", "start_time_nz": "12:50"}
    return {**race, **changes}


def runner(number: int = 1, /, **changes: object) -> dict[str, Any]:
    return {"entrant_id": f"e{number}", "runner_number": number, "name": f"Horse {number}", **changes}


def event(race: Mapping[str, Any] | None = None, **data: object) -> dict[str, Any]:
    fields = {
        "event_id": "r1",
        "description": "Cup",
        "status": "Open",
        "race_date_nz": "2025-07-17",
        "start_time_nz": "12:50:00 NZST",
    }
    return {"header": {}, "params": {}, "data": {"race": {**fields, **(race or {})}, **data}}


def rules_broken_by(race: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRaceError) as caught:
        RaceData.parse(cast("RaceInput", race))
    return [(error.path, error.message) for error in caught.value.errors]


def test_race_data_is_returned_as_it_is() -> None:
    race = RaceData.parse(normalised())

    assert RaceData.parse(race) is race


@pytest.mark.parametrize(
    "race", [normalised(entrants=[entrant()]), event(runners=[runner()])], ids=["normalised", "event"]
)
def test_every_input_form_gives_the_same_race(race: dict[str, Any]) -> None:
    text = json.dumps(race)

    parsed = RaceData.parse(race)

    assert len(parsed.entrants) == 1
    for form in (text, text.encode(), bytearray(text.encode()), memoryview(text.encode()), MappingProxyType(race)):
        assert RaceData.parse(form) == parsed
    assert RaceData.parse(msgpack.unpackb(msgpack.packb(race))) == parsed


def test_mappings_need_not_be_dictionaries() -> None:
    nested = ChainMap({"pools": MappingProxyType({"winPool": 5})}, normalised())

    assert RaceData.parse(nested) == RaceData.parse(normalised(pools={"winPool": 5}))


def test_both_shapes_of_one_race_are_equal_but_for_what_only_one_of_them_tells() -> None:
    of_event = RaceData.parse(event(runners=[runner(barrier=3, odds={"fixed_win": 2.5, "pool_place": 1.2})]))
    of_service = RaceData.parse(normalised(entrants=[entrant(barrier=3, fixedWinOdds=2.5, poolPlaceOdds=1.2)]))

    assert of_event.model_copy(update={"start_time_nz": "12:50"}) == of_service


def test_race_cannot_be_changed() -> None:
    race = RaceData.parse(normalised(entrants=[entrant()]))

    with pytest.raises(ValidationError, match="frozen"):
        race.name = "Plate"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        race.entrants[0].name = "Other"  # type: ignore[misc]


def test_unknown_keys_are_ignored_at_every_level() -> None:
    plain = normalised(entrants=[entrant()], pools={"winPool": 1}, meeting={"name": "m"})
    grown = normalised(
        header={"x": 1},
        entrants=[entrant(form=[1, {"deep": None}])],
        pools={"winPool": 1, "holdPercentage": "?"},
        meeting={"name": "m", "state": 3},
        data="no response",
    )

    assert RaceData.parse(grown) == RaceData.parse(plain)


def test_snake_case_and_camel_case_name_the_same_keys() -> None:
    values = (2.5, 1.5, 2.25, 1.25, True, False, "T", "Red")
    camel: tuple[str, ...] = ("fixedWinOdds", "fixedPlaceOdds", "poolWinOdds", "poolPlaceOdds")
    camel += ("isScratched", "isLateScratched", "trainerName", "silkColours")
    snake: tuple[str, ...] = ("fixed_win_odds", "fixed_place_odds", "pool_win_odds", "pool_place_odds")
    snake += ("is_scratched", "is_late_scratched", "trainer_name", "silk_colours")
    top_camel = {"raceNumber": 3, "meetingId": "m", "totePools": [{"productType": "Win", "total": 1}]}
    top_snake = {"race_number": 3, "meeting_id": "m", "tote_pools": [{"product_type": "Win", "total": 1}]}

    parsed = RaceData.parse(
        normalised(
            entrants=[entrant(**dict(zip(camel, values, strict=True)))],
            pools={"winPool": 5, "placePool": 6},
            **top_camel,
        )
    )

    assert parsed == RaceData.parse(
        normalised(
            entrants=[runner(**dict(zip(snake, values, strict=True)))],
            pools={"win_pool": 5, "place_pool": 6},
            **top_snake,
        )
    )
    assert parsed.entrants[0].is_scratched is True
    assert parsed.entrants[0].silk_colours == "Red"
    assert (parsed.race_number, parsed.meeting_id, parsed.tote_pools[0].total) == (3, "m", 1.0)


@pytest.mark.parametrize(
    "key", ["race_number", "meeting_id", "entrants", "pools", "tote_pools", "money_tracker", "meeting"]
)
def test_null_and_absent_are_the_same(key: str) -> None:
    assert RaceData.parse(normalised(**{key: None})) == RaceData.parse(normalised())


@pytest.mark.parametrize("key", ["id", "name", "race_date_nz", "start_time_nz"])
@pytest.mark.parametrize("is_null", [True, False])
def test_required_keys_of_a_normalised_race_are_required(key: str, is_null: bool) -> None:  # noqa: FBT001
    race = normalised(**{key: None})
    if not is_null:
        del race[key]

    assert [path for path, _ in rules_broken_by(race)] == [key]


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("event_id", "is required"),
        ("description", "is required"),
        ("race_date_nz", NO_START),
        ("start_time_nz", NO_START),
    ],
)
def test_required_keys_of_an_event_are_required(key: str, rule: str) -> None:
    race = event()
    del race["data"]["race"][key]

    assert rules_broken_by(race) == [(f"data.race.{key}", rule)]


@pytest.mark.parametrize(
    ("status", "read"),
    [
        *[(status, status.lower()) for status in ("open", "Closed", "INTERIM", "Final", "abandoned", "Live")],
        *[(" Open ", "open"), ("Postponed", "postponed"), ("UNKNOWN", "unknown"), ("Gro\u00df", "gross")],
        *[("", "unknown"), ("  ", "unknown"), (None, "unknown")],
    ],
)
def test_status_is_free_text_without_case(status: str | None, read: str) -> None:
    assert RaceData.parse(normalised(status=status)).status == read
    assert RaceData.parse(event({"status": status})).status == read


def test_status_may_be_absent() -> None:
    race, response = normalised(), event()
    del race["status"], response["data"]["race"]["status"]

    for body in (race, response, json.dumps(race), json.dumps(response)):
        assert RaceData.parse(body).status == "unknown"


WINTER, SUMMER = 1752713400, 1767225600  # 17 July 2025, 00:50 UTC; 1 January 2026, 00:00 UTC


@pytest.mark.parametrize(
    ("told", "derived"),
    [
        ({"advertised_start": WINTER}, ("2025-07-17", "12:50:00 NZST")),
        ({"advertised_start": SUMMER}, ("2026-01-01", "13:00:00 NZDT")),
        ({"advertised_start": WINTER, "race_date_nz": "2025-07-16"}, ("2025-07-16", "12:50:00 NZST")),
        ({"advertised_start": WINTER, "start_time_nz": "12:51"}, ("2025-07-17", "12:51")),
        ({"advertised_start": 0, "race_date_nz": "2025-07-16", "start_time_nz": "12:51"}, ("2025-07-16", "12:51")),
    ],
)
def test_date_and_time_that_are_not_told_are_those_of_the_advertised_start(
    told: dict[str, Any], derived: tuple[str, str]
) -> None:
    nothing = dict.fromkeys(("advertised_start", "race_date_nz", "start_time_nz"))

    of_service = RaceData.parse(normalised(**{**nothing, **told}))
    of_event = RaceData.parse(event({**nothing, **told}))

    assert (of_service.race_date_nz, of_service.start_time_nz) == derived
    assert (of_event.race_date_nz, of_event.start_time_nz) == derived
    assert RaceData.parse(of_event.model_dump_json()) == of_event


@pytest.mark.parametrize("advertised", [None, 0])
def test_race_without_any_start_is_told_what_would_do(advertised: int | None) -> None:
    nothing = {"advertised_start": advertised, "race_date_nz": None, "start_time_nz": None}
    rule = "is required, or both race_date_nz and start_time_nz"

    assert rules_broken_by(normalised(**nothing)) == [("advertised_start", rule)]
    assert rules_broken_by(event(nothing)) == [("data.race.advertised_start", rule)]


def test_start_beyond_the_calendar_of_new_zealand_is_refused() -> None:
    race = normalised(advertised_start=253402300799, start_time_nz=None)

    assert rules_broken_by(race) == [("advertised_start", "is beyond the calendar in New Zealand")]


def test_nameless_reserve_has_an_empty_name() -> None:
    nameless = runner(2)
    del nameless["name"]

    for parsed in (
        RaceData.parse(event(runners=[runner(1, name=None), nameless])),
        RaceData.parse(normalised(entrants=[entrant(1, name=None), nameless])),
    ):
        assert [each.name for each in parsed.entrants] == ["", ""]


@pytest.mark.parametrize(
    ("position", "barrier", "read"),
    [
        ("Fr1", 0, 1),
        ("Sr2", 9, 2),
        (3, 5, 3),
        (None, 5, 5),
        ("", 5, None),
        (0, 5, None),
        (0.0, "Fr5", None),
        ("Fr", "Sr4", None),
        (None, "", None),
        (None, None, None),
    ],
)
def test_barrier_position_goes_before_the_barrier(position: object, barrier: object, read: int | None) -> None:
    of_event = RaceData.parse(event(runners=[runner(barrier=barrier, barrier_position=position)]))
    of_service = RaceData.parse(normalised(entrants=[entrant(barrier=barrier, barrierPosition=position)]))

    for parsed in (of_event, of_service, RaceData.parse(of_service.model_dump())):
        assert parsed.entrants[0].barrier == read
    assert of_event.entrants == of_service.entrants
    assert "barrier_position" not in of_service.entrants[0].model_dump()
    assert "barrier_position" not in repr(of_service.entrants[0])


@pytest.mark.parametrize(
    ("header", "data", "path"),
    [
        ({"error": "Event not found"}, None, "header.error"),
        ({}, {"error": "Event not found"}, "data.error"),
        (None, {"error": "Event not found", "race": None}, "data.error"),
        ({"error": {"text": "Event not found"}}, {}, "header.error"),
    ],
)
def test_error_answer_of_the_tote_is_quoted(header: object, data: object, path: str) -> None:
    answer = {"header": header, "data": data}

    for body in (answer, json.dumps(answer), json.dumps(answer).encode()):
        [(at, rule)] = rules_broken_by(body)
        assert at == path
        assert rule.startswith("the tote sent an error instead of a race: ")
        assert "Event not found" in rule


def test_long_error_answer_is_quoted_in_part() -> None:
    [(_, rule)] = rules_broken_by({"header": {"error": "x" * 5_000}, "data": None})

    assert rule == f"the tote sent an error instead of a race: '{'x' * 200}'"


def test_error_answer_of_lists_in_lists_is_an_invalid_race() -> None:
    words: list[Any] = []
    for _ in range(100_000):
        words = [words]

    assert rules_broken_by({"header": {"error": words}, "data": None}) == [
        ("", "cannot be packed: it is nested more than 64 levels deep")
    ]


def test_error_beside_a_race_is_no_error_answer() -> None:
    whole = event(error="")
    assert RaceData.parse(whole) == RaceData.parse(event())
    whole["header"] = {"error": "slow"}
    assert RaceData.parse(whole) == RaceData.parse(event())

    del whole["data"]["race"]["description"]
    assert rules_broken_by(whole) == [("data.race.description", "is required")]
    assert rules_broken_by({"header": {"error": ""}, "data": None}) == [("data", "must be an object")]


@pytest.mark.parametrize("shape", [normalised(), event(runners=[runner()])], ids=["normalised", "event"])
def test_byte_order_mark_and_gzip_change_nothing(shape: dict[str, Any]) -> None:
    text = json.dumps(shape)
    marked = b"\xef\xbb\xbf" + text.encode()

    for body in ("\ufeff" + text, marked, bytearray(marked), gzip.compress(marked), memoryview(gzip.compress(marked))):
        assert RaceData.parse(body) == RaceData.parse(shape)


def test_gzip_is_unpacked_up_to_the_limit() -> None:
    text = json.dumps(normalised(name="x" * 1_000)).encode()

    assert RaceData.parse(gzip.compress(text), limit_bytes=len(text)).name == "x" * 1_000
    assert RaceData.parse(text, limit_bytes=1).name == "x" * 1_000
    with pytest.raises(InvalidRaceError, match=f"is larger than {len(text) - 1:,} bytes when it is unpacked"):
        RaceData.parse(gzip.compress(text), limit_bytes=len(text) - 1)


def test_gzip_bomb_is_refused_at_the_default_limit() -> None:
    [(path, rule)] = rules_broken_by(gzip.compress(b" " * (16 * 2**20 + 1)))

    assert (path, rule) == ("", "is larger than 16,777,216 bytes when it is unpacked; raise RACEPOOL_PAYLOAD_LIMIT")


def test_broken_gzip_is_refused() -> None:
    whole = gzip.compress(json.dumps(normalised()).encode())

    for body in (whole[:-3], whole[:2], whole[:20] + b"?" + whole[21:]):
        [(path, rule)] = rules_broken_by(body)
        assert path == ""
        assert rule.startswith("is no whole gzip file: ")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        *[("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16")],
        *[("utf-32", "UTF-32"), ("utf-32-le", "UTF-32"), ("utf-32-be", "UTF-32")],
    ],
)
def test_other_encodings_are_named(encoding: str, name: str) -> None:
    body = json.dumps(normalised()).encode(encoding)

    assert rules_broken_by(body) == [("", f"is text in {name}; JSON must be UTF-8")]
    assert rules_broken_by(gzip.compress(body)) == [("", f"is text in {name}; JSON must be UTF-8")]


def test_byte_that_is_not_utf_8_is_named() -> None:
    body = json.dumps(normalised(name="M\u0101nuka"), ensure_ascii=False).encode().replace(b"\xc4\x81", b"\xe2")

    [(path, rule)] = rules_broken_by(body)

    assert path == ""
    assert rule.startswith(f"is not UTF-8: it has the byte 0xe2 at {body.index(0xE2)}; send the body as the tote sent")


@pytest.mark.parametrize("text", ["12:50", "00:00", "23:59:59", "12:50 NZST", "12:50:00 NZDT", "12:50:00NZST"])
def test_start_times_are_accepted_and_kept_as_written(text: str) -> None:
    assert RaceData.parse(normalised(start_time_nz=text)).start_time_nz == text


@pytest.mark.parametrize(
    ("barrier", "read"),
    [
        *[(4, 4), (4.0, 4), (0, None), (None, None), ("Fr1", 1), ("Sr2", 2), ("Fr12/3", 12), ("7", 7), ("0", None)],
        *[("", None), ("none", None), ("Fr007", 7), ("Fr0", None), ("\u0663", None)],
    ],
)
def test_barrier_is_a_number_or_the_first_number_of_a_text(barrier: object, read: int | None) -> None:
    assert RaceData.parse(normalised(entrants=[entrant(barrier=barrier)])).entrants[0].barrier == read
    assert RaceData.parse(event(runners=[runner(barrier=barrier)])).entrants[0].barrier == read


@pytest.mark.parametrize(
    ("changes", "path", "rule"),
    [
        ({"id": ""}, "id", "must not be empty"),
        ({"id": 5}, "id", "must be text"),
        ({"name": b"Cup"}, "name", "must be text"),
        ({"name": "\ud800"}, "name", "must be valid Unicode text"),
        ({"status": 1}, "status", "must be text"),
        *[
            ({"race_date_nz": text}, "race_date_nz", DATE)
            for text in ("17/07/2025", "2025-02-30", "20250717", "1025-07-17")
        ],
        *[
            ({"race_date_nz": text}, "race_date_nz", DATE)
            for text in ("2025-W29-4", "2025-07-17T00:00:00", "\uff12025-07-17")
        ],
        *[
            ({"start_time_nz": text}, "start_time_nz", START)
            for text in ("9:05", "24:00", "12:60", "12:50 UTC", "12:50\n", "")
        ],
        ({"advertised_start": 1752713400000}, "advertised_start", "must be 253402300799 or less"),
        ({"advertised_start": -1}, "advertised_start", "must be 0 or more"),
        ({"advertised_start": 1.5}, "advertised_start", "must be a whole number"),
        ({"race_number": "1"}, "race_number", NUMBER),
        ({"race_number": float("nan")}, "race_number", NUMBER),
        ({"race_number": float("inf")}, "race_number", NUMBER),
        ({"entrants": {}}, "entrants", "must be a list"),
        ({"entrants": {"e1": entrant()}}, "entrants", "must be a list"),
        ({"entrants": "ab"}, "entrants", "must be a list"),
        ({"entrants": [None]}, "entrants.0", "must be an object"),
        ({"entrants": [entrant(), entrant(2, runnerNumber=0)]}, "entrants.1.runnerNumber", "must be 1 or more"),
        ({"entrants": [entrant(runnerNumber="1")]}, "entrants.0.runnerNumber", NUMBER),
        ({"entrants": [entrant(runnerNumber=True)]}, "entrants.0.runnerNumber", NUMBER),
        ({"entrants": [entrant(runnerNumber=1.5)]}, "entrants.0.runnerNumber", "must be a whole number"),
        ({"entrants": [entrant(entrantId="")]}, "entrants.0.entrantId", "must not be empty"),
        ({"entrants": [runner(entrant_id=7)]}, "entrants.0.entrant_id", "must be text"),
        ({"entrants": [entrant(isScratched=1)]}, "entrants.0.isScratched", "must be true or false"),
        ({"entrants": [entrant(isScratched="no")]}, "entrants.0.isScratched", "must be true or false"),
        ({"entrants": [entrant(fixedWinOdds="2.5")]}, "entrants.0.fixedWinOdds", NUMBER),
        ({"entrants": [runner(pool_win_odds=-0.5)]}, "entrants.0.pool_win_odds", "must be 0 or more"),
        *[({"entrants": [entrant(barrier=barrier)]}, "entrants.0.barrier", BARRIER) for barrier in BAD_BARRIERS],
        ({"entrants": [entrant(barrier="9" * 5000)]}, "entrants.0.barrier", BARRIER),
        ({"pools": []}, "pools", "must be an object"),
        ({"pools": {"winPool": "50000"}}, "pools.winPool", NUMBER),
        ({"pools": {"place_pool": True}}, "pools.place_pool", NUMBER),
        ({"pools": {"totalPool": -1}}, "pools.totalPool", "must be 0 or more"),
        ({"pools": {"winPool": float("nan")}}, "pools.winPool", NUMBER),
        ({"pools": {"winPool": 1e308}}, "pools.winPool", "must be 1000000000000 or less"),
        ({"pools": {"winPool": 10**400}}, "pools.winPool", NUMBER),
        ({"tote_pools": [{"total": float("inf")}]}, "tote_pools.0.total", NUMBER),
        ({"tote_pools": [{"product_type": 3}]}, "tote_pools.0.product_type", "must be text"),
        ({"money_tracker": []}, "money_tracker", "must be an object"),
        ({"money_tracker": {"entrants": [{"entrant_id": 4}]}}, "money_tracker.entrants.0.entrant_id", "must be text"),
        (
            {"money_tracker": {"entrants": [{"hold_percentage": "9"}]}},
            "money_tracker.entrants.0.hold_percentage",
            NUMBER,
        ),
        (
            {"money_tracker": {"entrants": [{"betPercentage": -1}]}},
            "money_tracker.entrants.0.betPercentage",
            "must be 0 or more",
        ),
        ({"meeting": {"meeting": 5}}, "meeting.meeting", "must be text"),
    ],
)
def test_broken_rule_is_told_at_its_path(changes: dict[str, Any], path: str, rule: str) -> None:
    assert rules_broken_by(normalised(**changes)) == [(path, rule)]


@pytest.mark.parametrize(
    ("data", "path", "rule"),
    [
        ({"runners": [runner(), runner(2, odds={"fixed_win": "2"})]}, "data.runners.1.odds.fixed_win", NUMBER),
        ({"runners": [runner(odds="evens")]}, "data.runners.0.odds", "must be an object"),
        ({"entrants": [runner(name=5)]}, "data.entrants.0.name", "must be text"),
        ({"runners": [runner(barrier_position=-1)]}, "data.runners.0.barrier_position", BARRIER),
        ({"dividends": [{"product_name": "Pool Win", "pool_size": "5"}]}, "data.dividends.0.pool_size", NUMBER),
        ({"dividends": [{"pool_size": -5}]}, "data.dividends.0.pool_size", "must be 0 or more"),
        ({"race": {"status": ["Open"]}}, "data.race.status", "must be text"),
        ({"runners": {"e1": runner()}}, "data.runners", "must be a list"),
        (
            {"money_tracker": {"entrants": [{"hold_percentage": -1}]}},
            "data.money_tracker.entrants.0.hold_percentage",
            "must be 0 or more",
        ),
        ({"tote_pools": [{"product_type": "Win", "total": "1"}]}, "data.tote_pools.0.total", NUMBER),
        ({"race": {"event_id": 5}}, "data.race.event_id", "must be text"),
    ],
)
def test_broken_rule_of_an_event_is_told_at_its_path(data: dict[str, Any], path: str, rule: str) -> None:
    race = event(data.pop("race", None), **data)

    assert rules_broken_by(race) == [(path, rule)]
    assert rules_broken_by(json.dumps(race)) == [(path, rule)]


def test_all_broken_rules_are_told() -> None:
    race = normalised(status=1, entrants=[entrant(name=1), entrant(2, runnerNumber=0)])

    assert [path for path, _ in rules_broken_by(race)] == ["status", "entrants.0.name", "entrants.1.runnerNumber"]


@pytest.mark.parametrize(
    ("race", "path"),
    [
        (normalised(entrants=[entrant(1), entrant(2), entrant(3, entrantId="e2")]), "entrants.2"),
        (event(runners=[runner(1), runner(2), runner(3, entrant_id="e2")]), "data.runners.2"),
        (event(entrants=[runner(1), runner(2), runner(3, entrant_id="e2")]), "data.entrants.2"),
    ],
)
def test_duplicate_entrant_id_is_told_at_the_second(race: dict[str, Any], path: str) -> None:
    assert rules_broken_by(race) == [(path, "has the id 'e2' of the entrant at 1; ids must differ")]


@pytest.mark.parametrize(
    ("race", "path", "rule"),
    [
        ({}, "", NEITHER),
        (b"{}", "", NEITHER),
        ({"header": {}, "race": {}}, "", NEITHER),
        (b"[]", "", "must be a JSON object"),
        (b"5", "", "must be a JSON object"),
        ("null", "", "must be a JSON object"),
        ({"data": None}, "data", "must be an object"),
        ({"data": {}}, "data.race", "is required"),
        ({"data": {}, "id": "r1"}, "data.race", "is required"),
        ({**normalised(race_number=-1), "data": {}}, "race_number", "must be 0 or more"),
        ({**normalised(meeting=5), "data": None}, "meeting", "must be an object"),
        ({"id": "r1", "name": "Cup", "status": "open", "race_date_nz": "2025-07-17"}, "start_time_nz", NO_START),
        ({"id": "r1", "status": "open", "advertised_start": 5}, "name", "is required"),
    ],
)
def test_shape_is_told_by_the_top_level_keys(race: object, path: str, rule: str) -> None:
    assert rules_broken_by(race) == [(path, rule)]


@pytest.mark.parametrize("race", [5, None, [normalised()], {"id"}, object()])
def test_other_types_are_refused(race: object) -> None:
    [(path, rule)] = rules_broken_by(race)

    assert path == ""
    assert rule.endswith(f"but is a {type(race).__name__}")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"id": ', b"[" * 50, "\ud800", b'{"id": "\\ud800"}', b"\xef\xbb\xbf", b"\xef\xbb"]
)
def test_text_that_is_no_json_is_refused(body: bytes | str) -> None:
    [(path, rule)] = rules_broken_by(body)

    assert path == ""
    assert rule.startswith(("Invalid JSON: ", "must be valid Unicode text", "is not UTF-8"))


def test_nan_in_json_is_refused_where_it_is_read_and_ignored_where_it_is_not() -> None:
    body = json.dumps(normalised(entrants=[entrant(weight=float("nan"))]))

    assert RaceData.parse(body).entrants[0].entrant_id == "e1"
    assert rules_broken_by(body.replace("weight", "fixedWinOdds")) == [("entrants.0.fixedWinOdds", NUMBER)]


def test_meeting_of_a_normalised_race_has_its_id_and_the_day_of_its_date() -> None:
    meeting = {"meeting": "m1", "name": "Ford", "date": "2025-07-17T00:00:00Z", "country": "NZ", "category": "T"}

    parsed = RaceData.parse(normalised(meeting={**meeting, "track_condition": "Soft6", "tote_status": "open"})).meeting

    assert parsed is not None
    assert parsed.model_dump() == {
        "meeting_id": "m1",
        "name": "Ford",
        "date": "2025-07-17",
        "country": "NZ",
        "category": "T",
        "track_condition": "Soft6",
        "tote_status": "open",
    }


def test_meeting_of_an_event_is_that_of_its_race() -> None:
    meeting = {"meeting_id": "m1", "meeting_name": "Ford", "country": "NZ", "type": "H", "track_condition": "Fast"}

    parsed = RaceData.parse(event(meeting)).meeting

    assert parsed is not None
    assert parsed.model_dump() == {
        "meeting_id": "m1",
        "name": "Ford",
        "date": "2025-07-17",
        "country": "NZ",
        "category": "H",
        "track_condition": "Fast",
        "tote_status": None,
    }
    assert RaceData.parse(event({"country": "NZ", "type": "H"})).meeting is None


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"runners": [runner(1)]}, ["Horse 1"]),
        ({"entrants": [runner(2)]}, ["Horse 2"]),
        ({"runners": [runner(1)], "entrants": [runner(2)]}, ["Horse 1"]),
        ({"runners": None, "entrants": [runner(2)]}, ["Horse 2"]),
        ({"runners": [], "entrants": [runner(2)]}, ["Horse 2"]),
        ({}, []),
    ],
)
def test_runners_of_an_event_go_before_its_entrants(data: dict[str, Any], names: list[str]) -> None:
    assert [entrant.name for entrant in RaceData.parse(event(**data)).entrants] == names


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"the real capture is not at {REAL_DATA}")
def test_real_capture_is_read_alike_in_every_form() -> None:
    body = (REAL_DATA / "nztab-event-awapuni-2025-07-17.json").read_bytes()

    race = RaceData.parse(body)

    assert (race.name, race.status, race.advertised_start) == ("PRYDA HANDICAP 1700", "final", 1752713400)
    assert [entrant.barrier for entrant in race.entrants] == [7, 2, 6, 1, 3, 4, 5, 8]
    assert race.money_tracker is not None
    assert len(race.money_tracker.entrants) == 76
    assert RaceData.parse(json.loads(body)) == race
    assert RaceData.parse(race.model_dump_json().encode()) == race
