"""A packed request in two parts, head and body. Knows where the body begins, but not what is in it."""

import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack

from racepool.protocol.codec import pack, unpack
from racepool.protocol.nesting import read_json

PEEK_BYTES = 16_384

JSON_HEAD = b"\x94" + pack("json")
"""The first bytes of a request whose body is JSON text: an array of four, and the encoding as its first element."""

GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BIN_HEADS = {0xC4: 2, 0xC5: 3, 0xC6: 5}  # the first byte of a msgpack bin: how many bytes stand before its content


@dataclass(frozen=True, slots=True)
class Parcel:
    """A packed request in two parts, so that a large body need not be copied into one payload on the event loop.

    `head` is all of the request that comes before the text of a JSON body, or before a packed race. `body` is the rest.
    """

    head: bytes
    body: bytes

    @staticmethod
    def of(payload: bytes) -> "Parcel":
        """The two parts of a packed request, which may be cut off after its beginning.

        If the bytes are no request, all of them become the head.
        """
        unpacker = msgpack.Unpacker(max_buffer_size=len(payload), max_ext_len=0, strict_map_key=False)
        unpacker.feed(payload)
        try:
            is_request = unpacker.read_array_header() == 4
            encoding, _, _ = (unpacker.unpack() for _ in range(3))
            body_at = unpacker.tell() + (_BIN_HEADS[payload[unpacker.tell()]] if encoding == "json" else 0)
        except Exception:  # noqa: BLE001  # msgpack's errors have no common base
            is_request = False
        return Parcel(payload[:body_at], payload[body_at:]) if is_request else Parcel(payload, b"")

    @property
    def size_bytes(self) -> int:
        """How many bytes the whole payload has."""
        return len(self.head) + len(self.body)

    def peek(self) -> Any:  # noqa: ANN401  # any value
        """What the first kilobytes of the body tell of the race, for a message about it. May be any value.

        Raises:
            Exception: the body is no JSON (ValueError), or no msgpack, or nested too deep.
        """
        if self.head.startswith(JSON_HEAD):
            return read_json(first_text(self.body), allow_partial=True)
        return unpack(self.body)

    def payload(self) -> bytes:
        """Both parts in one."""
        return self.head + self.body


def first_text(body: bytes) -> bytes:
    """The first kilobytes of a body's JSON text, which may be in a gzip file or have a byte order mark."""
    first = body[:PEEK_BYTES]
    if first.startswith(GZIP):
        with suppress(zlib.error):  # then it is no JSON, and the caller's parser reports that
            first = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(first, PEEK_BYTES)
    return first.removeprefix(BYTE_ORDER_MARK)
