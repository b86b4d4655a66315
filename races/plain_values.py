"""Which values a race that is given as a mapping may hold beside those of JSON. `exec` and `RaceData.parse` ask here.

A service makes such a mapping from the rows of its database, or with numpy; so the values of those are taken.
"""

from collections.abc import Mapping, Sequence, ValuesView
from datetime import date, time
from decimal import Decimal
from enum import Enum
from math import inf
from numbers import Integral, Real
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from racepool.protocol.codec import pack, unpack
from racepool.protocol.errors import InvalidRaceError
from racepool.protocol.nesting import TooDeepError
from racepool.races.fields import UNICODE_RULE

_PACK_ERRORS = (TypeError, ValueError, OverflowError)


def plain(value: object) -> object:
    """The value as JSON would hold it. A mapping or a sequence becomes a dict or a list; what is in it is not changed.

    numpy's numbers are registered as Integral and Real, so numpy need not be imported.

    Raises:
        TypeError: JSON has no such value.
    """
    match value:
        case Enum():
            return value.value
        case Mapping() | BaseModel():
            return dict(value)
        case int():  # the packer asks only for one of more than 64 bits
            return _float(value)
        case Integral():
            return int(value)
        case Real() | Decimal():
            return _float(value)
        case UUID():
            return str(value)
        case date() | time():
            return value.isoformat()
        case Sequence() | ValuesView() if not isinstance(value, str | bytes | bytearray | memoryview):
            return list(value)
        case _:
            raise TypeError(f"{type(value).__name__} is no value of JSON")


def _float(number: Any) -> float:  # noqa: ANN401  # Real has no operators for mypy
    """The nearest float; infinity if it is beyond all floats, as in JSON."""
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def pack_mapping(race: Mapping[str, Any]) -> bytes:
    """The race in msgpack.

    Raises:
        InvalidRaceError: names the path of a value that cannot be taken.
    """
    try:
        return pack(dict(race), plain)
    except TooDeepError as error:
        raise InvalidRaceError([("", f"cannot be packed: it {error}")]) from None
    except _PACK_ERRORS as error:
        path, reason = _culprit(race, error)
        is_text = isinstance(reason, UnicodeEncodeError)
        rule = UNICODE_RULE if is_text else f"cannot be packed: {reason}"
        raise InvalidRaceError([(path, rule)]) from None


def plain_copy(race: Mapping[str, Any]) -> dict[str, Any]:
    """The race as a worker gets it.

    Raises:
        InvalidRaceError: names the path of a value that cannot be taken.
    """
    copy: dict[str, Any] = unpack(pack_mapping(race))
    return copy


def _culprit(value: object, reason: Exception) -> tuple[str, Exception]:
    """The path of the innermost value that cannot be packed, and why."""
    path: list[str] = []
    while True:
        content = value if isinstance(value, dict | list | tuple) else _content(value)
        for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
            error = _refusal(inner)
            if error is not None:
                path.append(str(key))
                value, reason = inner, error
                break
        else:
            return ".".join(path), reason


def _content(value: object) -> dict[Any, Any] | list[Any]:
    try:
        content = plain(value)
    except _PACK_ERRORS:
        content = None
    return content if isinstance(content, dict | list) else []


def _refusal(value: object) -> Exception | None:
    try:
        pack(value, plain)
    except _PACK_ERRORS as error:
        return error
    return None
