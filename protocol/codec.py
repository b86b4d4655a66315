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
        Exception: it is no msgpack. msgpack's errors have no common base class.
    """
    try:
        return _decode(packed)
    except Exception:  # noqa: BLE001  # msgpack decides, and its error is the one to raise
        return msgpack.unpackb(packed, max_ext_len=0, strict_map_key=False)
