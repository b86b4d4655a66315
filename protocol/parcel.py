"""A packed request in two parts. Knows where the body begins, and nothing of what is in it."""

from dataclasses import dataclass
from typing import Any

import msgpack
from pydantic_core import from_json

from racepool.protocol.codec import pack, unpack

PEEK_BYTES = 16_384

JSON_HEAD = b"\x94" + pack("json")
"""How the head of a request begins whose body is JSON text: an array of four, the first of them the encoding."""

_BIN_HEADS = {0xC4: 2, 0xC5: 3, 0xC6: 5}  # bytes, by the first of them


@dataclass(frozen=True, slots=True)
class Parcel:
    """A packed request in two parts: a large body is not copied on the caller's event loop, nor before it is sent."""

    head: bytes
    body: bytes

    @staticmethod
    def of(payload: bytes) -> "Parcel":
        """A request that was packed before, as far as it is there; what is none is all head."""
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
        """What the payload will have."""
        return len(self.head) + len(self.body)

    def peek(self) -> Any:  # noqa: ANN401  # whatever is there
        """The race as far as the first kilobytes tell, for a message about it.

        Raises:
            ValueError: it is no race at all.
        """
        if self.head.startswith(JSON_HEAD):
            return from_json(self.body[:PEEK_BYTES], allow_partial=True)
        return unpack(self.body)

    def payload(self) -> bytes:
        """The payload of the task."""
        return self.head + self.body
