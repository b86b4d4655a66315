"""The payloads of tasks and results: a race on its way to a worker, a result on its way back.

The broker never opens them.

A request is the msgpack array `[encoding, polled_at, previous, body]`. With the encoding `json`, the body is one bin of
JSON text, as it was fetched; with `msgpack`, it is the race as a map. `polled_at` is in microseconds since 1970, UTC.
`previous` is null or `[race id, {entrant id: [win cents, place cents]}]`.

A result of our own transform is `["transformed_race", version, head, entrants, records]`: the racepool version of the
worker, and three JSON texts. A result of another transform is `["msgpack", result]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from racepool.protocol import VERSION
from racepool.protocol.codec import pack
from racepool.protocol.errors import InvalidRaceError
from racepool.protocol.failures import BadPayloadError, unpack_array
from racepool.protocol.messages import Payload
from racepool.protocol.nesting import TooDeepError
from racepool.protocol.parcel import JSON_HEAD, Parcel
from racepool.races.plain_values import pack_mapping
from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData, RaceInput
from racepool.races.race_clock import poll_instant
from racepool.races.transformed_race import TransformedRace
from racepool.races.unopened_race import JsonParts, json_parts, unopened

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ARRAY_OF_3 = b"\x93"
_MSGPACK_HEAD = b"\x94" + pack("msgpack")
_BIN_32, _BIN_32_BYTES = b"\xc6", 5


@dataclass(frozen=True, slots=True)
class Request:
    """A race on its way to the transform. It is not validated yet."""

    race: RaceInput
    polled_at: datetime
    previous: PreviousAmounts | None


def pack_request(race: RaceInput, polled_at: datetime, previous: PreviousAmounts | None) -> Parcel:
    """Packs a task. JSON is not parsed here; if it is `bytes`, it is not even copied.

    Args:
        race: a RaceData, a mapping, or JSON.
        polled_at: the instant of the poll, timezone-aware.
        previous: the amounts of the previous poll; None before the first.

    Raises:
        InvalidRaceError: the race cannot be packed, or `polled_at` is no instant of the years 1 to 9999.
    """
    polled_at_us = (poll_instant(polled_at) - _UNIX_EPOCH) // _MICROSECOND
    fields = pack(polled_at_us) + _packed_previous(previous)
    if isinstance(race, Mapping):
        return Parcel(_MSGPACK_HEAD + fields, pack_mapping(race))
    body = _text_of(race)
    return Parcel(JSON_HEAD + fields + _BIN_32 + len(body).to_bytes(4, "big"), body)


def _packed_previous(previous: PreviousAmounts | None) -> bytes:
    try:
        return pack(previous and previous.to_wire())
    except UnicodeEncodeError as error:
        raise InvalidRaceError([("previous", f"cannot be packed: {error}")]) from None


def _text_of(race: RaceInput) -> bytes:
    match race:
        case bytes():
            return race
        case bytearray() | memoryview():
            return bytes(race)  # a copy: the caller may change it before it is sent
        case str():
            return _utf8(race)
        case RaceData():
            return race.model_dump_json().encode()
        case _:
            raise InvalidRaceError(
                [("", f"is a {type(race).__name__}; give RaceData, a mapping, or JSON as bytes or str")]
            )


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRaceError([("", f"is no Unicode text: {error}")]) from None


def unpack_request(payload: Payload | Parcel) -> Request:
    """The request in a task's payload, which may still be in two parts.

    Raises:
        BadPayloadError: the payload is no request.
        InvalidRaceError: `previous` breaks its rule.
    """
    if isinstance(payload, Parcel) and not _is_of_text(payload):
        payload = payload.payload()
    if isinstance(payload, Parcel):  # reads the head alone, as an array of three, so that the body is not copied
        encoding, polled_at_us, previous = unpack_array(_ARRAY_OF_3 + payload.head[1:-_BIN_32_BYTES], 3)
        body: object = payload.body
    else:
        encoding, polled_at_us, previous, body = unpack_array(payload, 4)
    if encoding not in ("json", "msgpack") or type(body) is not (bytes if encoding == "json" else dict):
        raise BadPayloadError(f"a body of encoding {encoding!r} cannot be a {type(body).__name__}")
    if type(polled_at_us) is not int:
        raise BadPayloadError("polled_at is no number of microseconds")
    try:
        polled_at = _UNIX_EPOCH + timedelta(microseconds=polled_at_us)
    except OverflowError:
        raise BadPayloadError("polled_at is beyond the calendar") from None
    return Request(body, polled_at, None if previous is None else PreviousAmounts.from_wire(previous))


def _is_of_text(parcel: Parcel) -> bool:
    """Whether the body is the JSON text alone, and the head ends with its length, as `pack_request` makes them."""
    bin_header = _BIN_32 + len(parcel.body).to_bytes(4, "big")
    return parcel.head.startswith(JSON_HEAD) and parcel.head.endswith(bin_header)


def pack_result(result: object) -> bytes:
    """The payload of a result.

    Raises:
        TypeError, ValueError, OverflowError: msgpack cannot hold what the transform returned.
    """
    try:
        return _packed_result(result)
    except TooDeepError as error:
        raise ValueError(f"the result {error}") from None


def _packed_result(result: object) -> bytes:
    match result:
        case TransformedRace():
            parts = json_parts(result)
            return pack(["transformed_race", VERSION, parts.head, parts.entrants, parts.money_flow_records])
        case BaseModel():
            return pack(["msgpack", result.model_dump(mode="json")])
        case _:
            return pack(["msgpack", result])


def unpack_result(payload: Payload) -> Any:  # noqa: ANN401  # another transform may return anything that msgpack holds
    """The TransformedRace, or what another transform returned.

    A TransformedRace of our own version is valid, so it is opened when somebody looks at it. That of another version
    may have other fields, so it is opened and validated here.

    Raises:
        BadPayloadError: the payload is no result, or the TransformedRace of another version breaks a rule of ours.
    """
    match unpack_array(payload):
        case ["transformed_race", version, bytes() as head, bytes() as entrants, bytes() as records]:
            parts = JsonParts(head, entrants, records)
            return unopened(parts) if version == VERSION else _opened(parts)
        case ["msgpack", body]:
            return body
        case _:
            raise BadPayloadError("has no known encoding of a result")


def _opened(parts: JsonParts) -> TransformedRace:
    try:
        return parts.race()
    except (TypeError, ValueError) as error:
        raise BadPayloadError(f"is no TransformedRace: {error}") from None
