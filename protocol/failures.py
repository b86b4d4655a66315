"""The payload of an answer whose outcome is not `ok`. Knows no race."""

from typing import Any

import msgpack

from racepool.protocol.codec import unpack
from racepool.protocol.errors import CrashedAttempt, FieldError
from racepool.protocol.messages import Payload


class BadPayloadError(ValueError):
    """The payload does not fit its message; the text says why, as the end of a sentence ("... is no msgpack")."""


def pack_field_errors(errors: list[FieldError]) -> bytes:
    """The payload of an `invalid_race` answer."""
    return _packed([[error.path, error.message] for error in errors[:1000]])


def unpack_field_errors(payload: Payload) -> list[FieldError]:
    """The broken rules that the worker found."""
    return [FieldError(str(path), str(message)) for path, message in _unpack_pairs(payload)]


def pack_raised(type_: str, message: str, traceback: str) -> bytes:
    """The payload of a `raised` answer."""
    return _packed([type_, message, traceback])


def unpack_raised(payload: Payload) -> tuple[str, str, str]:
    """Type, message and traceback of what the transform raised."""
    type_, message, traceback = unpack_array(payload, 3)
    return str(type_), str(message), str(traceback)


def pack_crashes(attempts: list[CrashedAttempt]) -> bytes:
    """The payload of a `crashed` answer."""
    return _packed([[attempt.worker, attempt.signal] for attempt in attempts])


def unpack_crashes(payload: Payload) -> list[CrashedAttempt]:
    """The attempts whose workers died."""
    pairs = _unpack_pairs(payload)
    return [CrashedAttempt(str(worker), signal if type(signal) is int else None) for worker, signal in pairs]


def pack_size(size_bytes: int) -> bytes:
    """The payload of a `too_large` answer."""
    return _packed([size_bytes])


def unpack_size(payload: Payload) -> int:
    """The size of the result that was too large to send, in bytes."""
    (size_bytes,) = unpack_array(payload, 1)
    if type(size_bytes) is not int:
        raise BadPayloadError("is no number of bytes")
    return size_bytes


def unpack_array(payload: Payload, length: int | None = None) -> list[Any]:
    """The msgpack array in a payload.

    Raises:
        BadPayloadError: it is no array, or has another length.
    """
    try:
        value = unpack(payload)
    except Exception as error:  # noqa: BLE001  # msgpack's errors have no common base
        raise BadPayloadError(f"is no msgpack: {error}") from None
    if type(value) is not list or length not in (None, len(value)):
        raise BadPayloadError("is no array of the right length")
    return value


def _unpack_pairs(payload: Payload) -> list[Any]:
    pairs = unpack_array(payload)
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise BadPayloadError("is no array of pairs")
    return pairs


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="backslashreplace")
    return packed
