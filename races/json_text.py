"""The JSON text of a race, as it was fetched: unpacks gzip, skips a byte order mark, names any other encoding."""

import gzip
import zlib
from io import BytesIO
from typing import Final

from racepool.protocol.errors import InvalidRaceError
from racepool.protocol.parcel import BYTE_ORDER_MARK, GZIP

LIMIT_BYTES: Final = 16 * 2**20
"""How large a race may be when it is unpacked, if the caller names no other limit."""

_ENCODINGS: Final = (  # the first bytes of a text that begins with an ASCII character or a byte order mark
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_ZLIB: Final = 0x78  # the first byte of almost all zlib streams; the first two are a multiple of 31
_COMPRESSIONS: Final = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
)


def json_text(body: bytes, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """The text, in UTF-8 and without a byte order mark. A body that is such a text already is returned as it is.

    Args:
        body: JSON in UTF-8, or a gzip file of it.
        limit_bytes: how many bytes an unpacked text may have.

    Raises:
        InvalidRaceError: the body is a broken gzip file, is larger than the limit when it is unpacked, or is a text in
            UTF-16 or UTF-32.
    """
    text = _unpacked(body, limit_bytes) if body.startswith(GZIP) else body
    if text.startswith(BYTE_ORDER_MARK):
        return text.removeprefix(BYTE_ORDER_MARK)
    if encoding := _other_encoding(text[:4]):
        raise InvalidRaceError([("", f"is text in {encoding}; JSON must be UTF-8")])
    return text


def body_fault(body: bytes | str) -> str | None:
    """What a body is that cannot be parsed, if its bytes tell more than the parser does."""
    content = (body.encode(errors="surrogatepass") if isinstance(body, str) else body).lstrip()
    if not content:
        return "Invalid JSON: the body is empty"
    if content.startswith(b"<"):
        return "Invalid JSON: the body is HTML or XML, such as the error page of a web server"
    if kind := _compression(content):
        return f"Invalid JSON: the body is compressed with {kind}; let the HTTP client unpack it"
    return _encoding_fault(body) if isinstance(body, bytes) else None


def _compression(content: bytes) -> str | None:
    if content[0] == _ZLIB and int.from_bytes(content[:2], "big") % 31 == 0:
        return "deflate (zlib)"
    return next((kind for mark, kind in _COMPRESSIONS if content.startswith(mark)), None)


def _encoding_fault(text: bytes) -> str | None:
    """Where the text is not UTF-8; None if it is. A body that is compressed with brotli has no mark of its own."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        remedy = "send the body as the tote sent it; if it is compressed, let the HTTP client unpack it"
        return f"is not UTF-8: it has the byte 0x{byte:02x} at {error.start}; {remedy}"
    return None


def _unpacked(body: bytes, limit_bytes: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as file:
            text = file.read(limit_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidRaceError([("", f"is no whole gzip file: {error}")]) from None
    if len(text) > limit_bytes:
        raise InvalidRaceError(
            [("", f"is larger than {limit_bytes:,} bytes when it is unpacked; raise RACEPOOL_PAYLOAD_LIMIT")]
        )
    return text


def _other_encoding(first: bytes) -> str | None:
    for mark, encoding in _ENCODINGS:
        if first.startswith(mark):
            return encoding
    zeros = [index for index, byte in enumerate(first) if byte == 0]
    return {(1, 3): "UTF-16", (0, 2): "UTF-16", (1, 2, 3): "UTF-32", (0, 1, 2): "UTF-32"}.get(tuple(zeros))
