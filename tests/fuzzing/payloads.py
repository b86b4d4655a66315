"""Payloads that try to cost a worker much time or memory: each must be answered, within limits."""

import json
from typing import Any

import msgpack

VALID: dict[str, Any] = {
    "id": "r1",
    "name": "echo",
    "status": "open",
    "race_date_nz": "2026-01-31",
    "start_time_nz": "12:50",
    "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
}
SIZE = 400_000


def as_json(body: bytes) -> bytes:
    """A request with this JSON text."""
    packed: bytes = msgpack.packb(["json", 0, None, body])
    return packed


def as_msgpack(race: bytes) -> bytes:
    """A request with this msgpack as its race."""
    return b"\x94\xa7msgpack\x00\xc0" + race


def _with(name: str, value: str) -> bytes:
    return as_json((json.dumps(VALID)[:-1] + f', "{name}": {value}}}').encode())


def _colliding_keys(count: int) -> bytes:
    """A map whose keys are arrays of two numbers, which Python makes tuples: all have the same hash.

    The hash of a tuple is not seeded, and it can be computed backwards: to each first number belongs a second one.
    """
    keys: list[bytes] = []
    first, inverse = 0, pow(_TUPLE_2, -1, 2**64)
    goal = _rotated(pow(_TUPLE_1, -1, 2**64), 33)
    while len(keys) < count:
        first += 1
        lane = _rotated(_TUPLE_START + first * _TUPLE_2, 31) * _TUPLE_1
        second = (goal - lane) * inverse % 2**64
        if second < 2**61 - 1:  # greater numbers have another hash
            keys.append(msgpack.packb([first, second]))
    return b"\xdf" + count.to_bytes(4, "big") + b"".join(key + b"\xc0" for key in keys)


def _rotated(value: int, bits: int) -> int:
    value %= 2**64
    return (value << bits | value >> 64 - bits) % 2**64


_TUPLE_1, _TUPLE_2, _TUPLE_START = 11_400_714_785_074_694_791, 14_029_467_366_897_019_727, 2_870_177_450_012_600_261

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no msgpack": b"\xc1" * 100,
    "400 KB of empty maps": as_msgpack(b"\x81\xa1a\xdd" + SIZE.to_bytes(4, "big") + b"\x80" * SIZE),
    "400 KB of nested maps": as_msgpack(b"\x81\xa1a" * (SIZE // 3) + b"\xc0"),
    "maps nested as deep as msgpack goes": as_msgpack(b"\x81\xa1a" * 1_000 + b"\xc0"),
    "a map of 100,000 keys": as_msgpack(msgpack.packb({str(index): None for index in range(100_000)})),
    "a map of 5,000 keys with one hash": as_msgpack(_colliding_keys(5_000)),
    "an array that claims four billion": as_msgpack(b"\x81\xa1a\xdd\xff\xff\xff\xff"),
    "a map that claims four billion": as_msgpack(b"\xdf\xff\xff\xff\xff"),
    "an extension": as_msgpack(b"\x81\xa1a" + msgpack.packb(msgpack.ExtType(5, b"x"))),
    "trailing bytes": as_json(json.dumps(VALID).encode()) + b"\x00",
    "400 KB of brackets": as_json(b"[" * SIZE),
    "a huge array of JSON": as_json(b'{"data": [' + b"{}," * (SIZE // 3) + b"{}]}"),
    "10,000 entrants": as_json(json.dumps(VALID | {"entrants": [{}] * 10_000}).encode()),
    "400 KB of digits": _with("race_number", "9" * SIZE),
    "NaN": _with("advertised_start", "NaN"),
    "infinity": _with("advertised_start", "1e999"),
    "duplicate keys": _with("name", '"echo"'),
    "no UTF-8": as_json(b'{"id": "\xff\xfe"}'),
    "a lone surrogate": _with("name", '"\\ud800"'),
    "a text of 400 KB": _with("name", json.dumps("x" * SIZE)),
    "previous amounts without end": msgpack.packb(["json", 0, ["r", {str(n): [1, 1] for n in range(20_000)}], b"{}"]),
}
