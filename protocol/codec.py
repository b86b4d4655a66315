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
from racepool.protocol.nesting import Plain, TooDeepError, check_nesting

_STRICT = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


def _refuse(code: int, _: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code}")


_decode = msgspec.msgpack.Decoder(ext_hook=_refuse).decode


def pack(value: object, plain: Plain | None = None) -> bytes:
    """The value in msgpack.

    Args:
        value: what to pack.
        plain: turns a value that msgpack does not know into one that it knows; None: such a value is refused.

    Raises:
        TypeError, ValueError, OverflowError: msgpack cannot hold it, or it is nested too deep.
    """
    check_nesting(value, plain)
    try:
        return ormsgpack.packb(value, default=plain, option=_STRICT)
    except TypeError:  # ormsgpack raises no other error; one reason is a key that is no text, which msgpack accepts
        packed: bytes = msgpack.packb(value, default=plain)
        return packed


def unpack(packed: Payload) -> Any:  # noqa: ANN401  # any value
    """The value in msgpack bytes.

    Raises:
        Exception: it is no msgpack, or nested too deep. msgpack's errors have no common base class.
    """
    try:
        value = _decode(packed)
    except Exception:  # noqa: BLE001  # msgpack decides, and its error is the one to raise
        try:
            value = msgpack.unpackb(packed, max_ext_len=0, strict_map_key=False)
        except msgpack.StackError:
            raise TooDeepError from None
    check_nesting(value)
    return value
