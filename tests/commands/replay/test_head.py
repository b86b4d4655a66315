"""The head of a captured poll."""

import json
from datetime import UTC, datetime

import pytest

from racepool.commands.replay.head import head_of, instant_in
from racepool.protocol.errors import InvalidRaceError

AT = datetime(2025, 7, 17, 0, 15, tzinfo=UTC)


def response(**header: object) -> dict[str, object]:
    return {"header": header, "data": {"race": {"event_id": "e-1", "race_number": 7}, "runners": "not read here"}}


def test_response_tells_its_race_and_when_it_was_made() -> None:
    head = head_of(json.dumps(response(generated_time="2025-07-17T00:15:00Z")).encode())

    assert head == ("e-1", 7, AT)


def test_normalised_race_tells_its_race_and_no_time() -> None:
    assert head_of(b'{"id": "r-1", "name": "Otterby Plate"}') == ("r-1", None, None)


@pytest.mark.parametrize("time", ["yesterday", "2025-07-17T00:15:00", 5, None])
def test_time_that_says_no_instant_is_none(time: object) -> None:
    assert head_of(json.dumps(response(generated_time=time)).encode()).generated_at is None


@pytest.mark.parametrize("ignored", [b'"caf\xe9"', b"[" * 300 + b"]" * 300, b"9" * 5_000])
def test_what_the_pool_steps_over_is_stepped_over_here(ignored: bytes) -> None:
    body = json.dumps(response(generated_time="2025-07-17T00:15:00Z") | {"id": 7}).encode()

    assert head_of(body.replace(b'"not read here"', ignored)) == ("e-1", 7, AT)


@pytest.mark.parametrize("header", ["text", [], None, 3])
def test_strange_header_is_none_of_our_business(header: object) -> None:
    assert head_of(json.dumps(response() | {"header": header}).encode()).race_id == "e-1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "must be an object"),
        (b"{}", "neither an NZ TAB event response"),
        (b'{"data": {"race": {}}}', "data.race.event_id: is required"),
        (b'{"data": {}}', "data.race: is required"),
        (b'{"id": ""}', "id: must not be empty"),
        (b'{"id": 5}', "id: must be text"),
        (b"\xff\xfe", "Invalid JSON"),
    ],
)
def test_what_is_no_poll_is_told(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRaceError, match=words):
        head_of(body)


@pytest.mark.parametrize(
    "name",
    [
        "20250717T001500Z-race-01.json",
        "race-01_20250717T001500Z.json.gz",
        "20250717T121500+1200.json",
        "2025-07-17T12-15-00+12:00 R3.json",
        "2025-07-17T00:15:00Z.json",
        "2025-07-17T00:15:00.000000Z.json",
        "1234-20250717T001500Z.json",
    ],
)
def test_instant_in_a_name_is_read(name: str) -> None:
    assert instant_in(name) == AT


def test_fraction_of_a_second_in_a_name_is_read() -> None:
    assert instant_in("20250717T001500.25Z.json") == AT.replace(microsecond=250_000)
    assert instant_in("2025-07-17T00-15-00.18904298Z.json") == AT.replace(microsecond=189_042)


@pytest.mark.parametrize(
    "name",
    [
        "race.json",
        "20250717T001500.json",
        "20251799T001500Z.json",
        "20250717.json",
        "120250717T001500Z.json",
        "2025-07-17.json",
    ],
)
def test_name_without_an_instant_tells_none(name: str) -> None:
    assert instant_in(name) is None
