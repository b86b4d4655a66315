"""msgpack for payloads, by faster libraries: ormsgpack packs, msgspec unpacks.

What they refuse, msgpack itself tries again. So msgpack decides what can be packed, and its errors are the ones that
callers see. msgspec does not pack, because it packs sets and dates, which msgpack refuses. ormsgpack does not unpack,
because it ignores bytes after the value. Headers are packed by msgpack only.
"""

from typing import Any, NoReturn

import msgpack
import msgspec
import ormsgpack

from racepool.protocol.messages import Payload

_STRICT = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
MAX_NESTING = 1_024
_CONTAINERS = frozenset({list, tuple, dict})  # tuples are keys that were arrays


def _refuse(code: int, _: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code}")


_decode = msgspec.msgpack.Decoder(ext_hook=_refuse).decode


def pack(value: object) -> bytes:
    """The value in msgpack.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: msgpack cannot hold it.
    """
    try:
        return ormsgpack.packb(value, option=_STRICT)
    except TypeError:  # ormsgpack raises no other error; one reason is a key that is no text, which msgpack accepts
        packed: bytes = msgpack.packb(value)
        return packed


def unpack(packed: Payload) -> Any:  # noqa: ANN401  # any value
    """The value in msgpack bytes.

    Raises:
        Exception: it is no msgpack, or nested too deep. msgpack's errors have no common base class.
    """
    try:
        value = _decode(packed)
    except Exception:  # noqa: BLE001  # msgpack decides, and its error is the one to raise
        value = msgpack.unpackb(packed, max_ext_len=0, strict_map_key=False)
    _check_nesting(value)
    return value


def _check_nesting(value: object) -> None:
    """The libraries' own bounds depend on the interpreter: 1,024 levels in Python 3.11, 9,999 in 3.13."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_NESTING):
        level = [
            inner
            for outer in level
            for inner in ((*outer, *outer.values()) if type(outer) is dict else outer)
            if type(inner) in _CONTAINERS
        ]
        if not level:
            return
    raise ValueError(f"is nested more than {MAX_NESTING} levels deep")
