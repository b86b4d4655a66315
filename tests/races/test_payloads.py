import gzip
import itertools
import json
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from racepool.protocol import VERSION
from racepool.protocol.errors import InvalidRaceError
from racepool.protocol.failures import BadPayloadError
from racepool.protocol.parcel import Parcel
from racepool.races.payloads import Request, pack_request, pack_result, unpack_request, unpack_result
from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import TransformedRace
from racepool.races.unopened_race import json_parts

POLLED_AT = datetime(2026, 1, 31, 1, 2, 3, 456_789, tzinfo=UTC)
RACE: dict[str, Any] = {
    "id": "r1",
    "name": "Cup",
    "status": "open",
    "race_date_nz": "2026-01-31",
    "start_time_nz": "12:50",
    "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
}
BODY = json.dumps(RACE).encode()


def round_trip(race: Any, previous: PreviousAmounts | None = None) -> Request:  # noqa: ANN401
    return unpack_request(pack_request(race, POLLED_AT, previous).payload())


@pytest.mark.parametrize(
    "body",
    [BODY, bytearray(BODY), memoryview(BODY), memoryview(BODY[::-1])[::-1], BODY.decode()],
    ids=lambda body: type(body).__name__,
)
def test_text_travels_as_it_was_fetched(body: Any) -> None:  # noqa: ANN401
    assert round_trip(body) == Request(BODY, POLLED_AT, None)


def test_text_is_not_looked_into() -> None:
    assert round_trip(b"\xff no JSON at all").race == b"\xff no JSON at all"


@pytest.mark.parametrize(
    "race", [RACE, OrderedDict(RACE), MappingProxyType(RACE)], ids=lambda race: type(race).__name__
)
def test_mapping_travels_as_itself(race: Any) -> None:  # noqa: ANN401
    assert round_trip(race).race == RACE


@pytest.mark.parametrize(
    "race", [BODY, RACE, b"", {}, b"x" * 100_000], ids=["text", "mapping", "none", "empty", "large"]
)
@pytest.mark.parametrize("previous", [None, PreviousAmounts("r1", {"a": (100, 50)})], ids=["first", "later"])
def test_packed_request_is_the_same_parcel_again(race: Any, previous: PreviousAmounts | None) -> None:  # noqa: ANN401
    parcel = pack_request(race, POLLED_AT, previous)

    assert Parcel.of(parcel.payload()) == parcel


@pytest.mark.parametrize("size", [10, 300, 70_000])
def test_request_of_another_packer_is_taken_apart_where_its_body_begins(size: int) -> None:
    body = b'{"id": "r1", "padding": "%s"}' % (b"x" * size)
    payload = msgpack.packb(["json", 0, None, body])

    parcel = Parcel.of(payload)

    assert parcel.body == body
    assert parcel.payload() == payload
    assert parcel.peek()["id"] == "r1"
    assert unpack_request(parcel) == unpack_request(payload) == unpack_request(Parcel(payload[:1], payload[1:]))


@pytest.mark.parametrize("padding", ["", "x" * 100_000])
def test_beginning_of_a_fetched_body_tells_its_race(padding: str) -> None:
    text = json.dumps({"id": "r1", "padding": padding}).encode()
    marked = b"\xef\xbb\xbf" + text

    for body in (text, marked, gzip.compress(text), gzip.compress(marked, 0)):
        assert pack_request(body, POLLED_AT, None).peek()["id"] == "r1"
    with pytest.raises(ValueError, match="expected value"):
        pack_request(gzip.compress(text)[:2] + b"?" * 20, POLLED_AT, None).peek()


@given(st.integers(0, len(BODY)))
def test_beginning_of_a_request_is_a_parcel_too(cut: int) -> None:
    parcel = pack_request(BODY, POLLED_AT, None)

    assert Parcel.of(parcel.head + BODY[:cut]) == Parcel(parcel.head, BODY[:cut])


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x94\xa4json")
@example(b"\x94\xa4json\x00\xc0\x01")
@example(b"\x93\xa4json\x00\xc0\xc4\x01x")
@example(b"\xdd\xff\xff\xff\xff")
def test_parcel_of_whatever_it_is_travels_unchanged(payload: bytes) -> None:
    assert Parcel.of(payload).payload() == payload


def test_race_data_is_the_same_race_on_the_other_side() -> None:
    race = RaceData.parse(RACE)

    assert RaceData.parse(round_trip(race).race) == race


@pytest.mark.parametrize(
    "polled_at",
    [
        POLLED_AT,
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=13))),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_instant_of_the_poll_keeps_its_microseconds(polled_at: datetime) -> None:
    assert unpack_request(pack_request(BODY, polled_at, None).payload()).polled_at == polled_at


def test_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRaceError, match="polled_at: must be a timezone-aware"):
        pack_request(BODY, datetime(2026, 1, 31), None).payload()  # noqa: DTZ001  # what is tested


@pytest.mark.parametrize("race_id", ["r1", None])
def test_previous_amounts_travel_along(race_id: str | None) -> None:
    previous = PreviousAmounts(race_id, {"a": (123, 0), "b": (2**63 - 1, 7)})

    assert round_trip(BODY, previous).previous == previous


@pytest.mark.parametrize(
    ("race", "complaint"),
    [
        (None, "is a NoneType"),
        (42, "is a int"),
        ([RACE], "is a list"),
        ("text \ud800", "is no Unicode text"),
        ({"id": {1, 2}}, "id: cannot be packed"),
        ({"id": "\ud800"}, "id: must be valid Unicode text"),
        ({"id": object()}, "id: cannot be packed"),
    ],
    ids=itertools.count(),  # an object's repr holds its address
)
def test_what_cannot_be_packed_is_the_callers_error(race: Any, complaint: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidRaceError, match=complaint):
        pack_request(race, POLLED_AT, None).payload()


def test_race_that_contains_itself_cannot_be_packed() -> None:
    race: dict[str, Any] = {}
    race["race"] = race

    with pytest.raises(InvalidRaceError, match="cannot be packed"):
        pack_request(race, POLLED_AT, None).payload()


@pytest.mark.parametrize(
    "request_fields",
    [
        [],
        ["json", 0, None],
        ["json", 0, None, b"{}", 1],
        ["yaml", 0, None, b"{}"],
        [None, 0, None, b"{}"],
        [["json"], 0, None, b"{}"],
        ["json", 0, None, "{}"],
        ["json", 0, None, {}],
        ["msgpack", 0, None, b"{}"],
        ["msgpack", 0, None, []],
        ["json", "now", None, b"{}"],
        ["json", True, None, b"{}"],
        ["json", None, None, b"{}"],
        ["json", 1.5, None, b"{}"],
        ["json", 2**64 - 1, None, b"{}"],
        ["json", -(2**63), None, b"{}"],
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused(request_fields: list[object]) -> None:
    with pytest.raises(BadPayloadError):
        unpack_request(msgpack.packb(request_fields))


@pytest.mark.parametrize(
    "previous",
    [
        1,
        "r1",
        [],
        ["r1"],
        ["r1", []],
        [1, {}],
        ["r1", {"a": 1}],
        ["r1", {"a": [1]}],
        ["r1", {"a": [-1, 0]}],
        ["r1", {"a": [1, "2"]}],
        ["r1", {"a": [2**63, 0]}],
        ["r1", {"a": [1.5, 0]}],
        ["r1", {b"a": [1, 0]}],
    ],
    ids=repr,
)
def test_previous_amounts_that_break_their_rule_are_refused(previous: object) -> None:
    with pytest.raises((InvalidRaceError, BadPayloadError)):
        unpack_request(msgpack.packb(["json", 0, previous, b"{}"]))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
REQUESTS = st.tuples(st.sampled_from(["json", "msgpack"]) | ANYTHING, ANYTHING, ANYTHING, ANYTHING)


@given(st.binary(max_size=64) | ANYTHING.map(msgpack.packb) | REQUESTS.map(msgpack.packb))
def test_hostile_request_is_refused_or_read(payload: bytes) -> None:
    try:
        unpack_request(payload)
    except (BadPayloadError, InvalidRaceError):
        return


JSON_TEXTS = st.sampled_from([b"", b"{", b"{}", b"[]", b"[{}]", b"null", b"\xff"]) | st.binary(max_size=9)
RESULTS = st.tuples(st.just("transformed_race"), st.just("0.0.1") | ANYTHING, *[JSON_TEXTS | ANYTHING] * 3)


@given(
    st.binary(max_size=64)
    | ANYTHING.map(msgpack.packb)
    | st.tuples(st.sampled_from(["transformed_race", "msgpack"]) | ANYTHING, ANYTHING).map(msgpack.packb)
    | RESULTS.map(msgpack.packb)
)
def test_hostile_result_is_refused_or_read(payload: bytes) -> None:
    try:
        result = unpack_result(payload)
    except BadPayloadError:
        return
    if isinstance(result, TransformedRace):
        assert msgpack.unpackb(payload, strict_map_key=False)[1] == VERSION, "that of another version is validated"


def packed_result(version: object, **broken: bytes) -> bytes:
    parts = json_parts(transform_race(RaceData.parse(BODY), polled_at=POLLED_AT))
    parts = replace(parts, **broken)
    packed: bytes = msgpack.packb(["transformed_race", version, parts.head, parts.entrants, parts.money_flow_records])
    return packed


@pytest.mark.parametrize(
    "broken",
    [{"head": b"{}"}, {"head": b"{"}, {"entrants": b"[{}]"}, {"money_flow_records": b"[{}]"}, {"entrants": b"\xff"}],
    ids=str,
)
@pytest.mark.parametrize("version", ["0.0.1", "", None, 7])
def test_broken_result_of_another_version_is_refused(version: object, broken: dict[str, bytes]) -> None:
    with pytest.raises(BadPayloadError, match="is no TransformedRace"):
        unpack_result(packed_result(version, **broken))


def test_result_of_another_version_is_opened_at_once_and_ours_at_the_first_look() -> None:
    ours, other = (unpack_result(packed_result(version)) for version in (VERSION, "0.0.1"))

    assert type(other) is TransformedRace
    assert type(ours) is not TransformedRace
    assert ours == other


@pytest.mark.parametrize("levels", [1_025, 2_000, 9_000, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\x81\xa1k", b"\x81\x91"], ids=["[", "{1:", "{k:", "{["])
def test_nesting_is_bounded(opening: bytes, levels: int) -> None:
    with pytest.raises(BadPayloadError, match="is no msgpack"):
        unpack_request(opening * levels + b"\x01")


def test_nesting_within_the_bound_is_no_fault() -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value]

    assert unpack_result(pack_result(value)) == value


@pytest.mark.parametrize("result", [None, 7, "text", b"bytes", [1, [2]], {"a": 1.5}, {"a": None}])
def test_result_of_another_transform_is_whatever_it_returned(result: object) -> None:
    assert unpack_result(pack_result(result)) == result


def test_model_of_another_transform_comes_back_as_its_fields() -> None:
    class Figures(BaseModel):
        at: datetime
        total: int

    assert unpack_result(pack_result(Figures(at=POLLED_AT, total=3))) == {
        "at": "2026-01-31T01:02:03.456789Z",
        "total": 3,
    }


@pytest.mark.parametrize("result", [object(), {1, 2}, 2**64, "\ud800"], ids=["object", "set", "2**64", "surrogate"])
def test_result_that_cannot_be_packed_raises_as_documented(result: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        pack_result(result)


def test_bytes_are_packed_without_a_copy() -> None:
    assert pack_request(BODY, POLLED_AT, None).body is BODY


@pytest.mark.parametrize("view", [lambda buffer: buffer, memoryview], ids=["bytearray", "memoryview"])
def test_a_buffer_that_its_owner_changes_later_is_packed_as_it_was(view: Any) -> None:  # noqa: ANN401
    buffer = bytearray(BODY)

    parcel = pack_request(view(buffer), POLLED_AT, None)
    buffer[:] = bytes(len(BODY))

    assert parcel.body == BODY


@pytest.mark.parametrize("polled_at", ["2026-01-31T12:50:00Z", 1769817000, None])
def test_an_instant_that_is_no_datetime_is_refused(polled_at: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidRaceError, match="polled_at: must be a timezone-aware datetime"):
        pack_request(BODY, polled_at, None)
