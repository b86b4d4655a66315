"""msgpack for payloads: by faster libraries, and by msgpack itself whatever those refuse.

So what can be packed is what msgpack says, down to the words of an error. ormsgpack packs, since msgspec takes sets and
dates for what they are not; msgspec unpacks, since ormsgpack leaves bytes after the value unread. Headers are msgpack's
alone.
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
    except TypeError:  # all its errors are; a key that is no text is one, which msgpack takes
        packed: bytes = msgpack.packb(value)
        return packed


def unpack(packed: Payload) -> Any:  # noqa: ANN401  # whatever it is
    """The value in msgpack bytes.

    Raises:
        Exception: it is no msgpack, or nested too deep; its errors have no common base.
    """
    try:
        value = _decode(packed)
    except Exception:  # noqa: BLE001  # whatever it is, the other one tells it
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
