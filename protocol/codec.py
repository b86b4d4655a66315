"""msgpack for payloads: ormsgpack, which is two to three times faster, and msgpack for whatever that one refuses.

So the two agree on what can be packed, down to the words of an error. Headers are msgpack's alone.
"""

from typing import Any

import msgpack
import ormsgpack

from protocol.messages import Payload

_STRICT = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


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
        return ormsgpack.unpackb(packed)
    except ValueError:
        return msgpack.unpackb(packed, max_ext_len=0, strict_map_key=False)
