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
        Exception: it is no msgpack; its errors have no common base.
    """
    try:
        return _decode(packed)
    except Exception:  # noqa: BLE001  # whatever it is, the other one tells it
        return msgpack.unpackb(packed, max_ext_len=0, strict_map_key=False)
