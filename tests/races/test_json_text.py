import codecs
import gzip
import io
import zlib

import pytest

from racepool.protocol.errors import InvalidRaceError
from racepool.races.json_text import LIMIT_BYTES, body_fault, json_text
from racepool.races.race import RaceData

TEXT = '{"name": "M\u0101nuka"}'
BODY = TEXT.encode()


def refused(body: bytes, limit_bytes: int = LIMIT_BYTES) -> str:
    with pytest.raises(InvalidRaceError) as caught:
        json_text(body, limit_bytes)
    [(path, rule)] = caught.value.errors
    assert path == ""
    return rule


@pytest.mark.parametrize("body", [BODY, b"", b"{", b"5", b"\xef\xbb", b"\x1f", b" \x00", b"M\xe2"])
def test_text_in_utf_8_is_returned_as_it_is(body: bytes) -> None:
    assert json_text(body) is body


@pytest.mark.parametrize(
    "body",
    [
        codecs.BOM_UTF8 + BODY,
        gzip.compress(BODY),
        gzip.compress(codecs.BOM_UTF8 + BODY),
        gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]),  # a gzip file may have several parts
        gzip.compress(BODY, compresslevel=0),
    ],
    ids=["marked", "packed", "packed with a mark", "packed in two parts", "not compressed"],  # the bytes tell the time
)
def test_text_is_unpacked_and_without_a_byte_order_mark(body: bytes) -> None:
    assert json_text(body) == BODY


def test_byte_order_mark_is_skipped_once_and_only_at_the_beginning() -> None:
    twice = codecs.BOM_UTF8 * 2 + BODY

    assert json_text(twice) == codecs.BOM_UTF8 + BODY
    assert json_text(BODY + codecs.BOM_UTF8) == BODY + codecs.BOM_UTF8


@pytest.mark.parametrize(
    ("mark", "encoding", "name"),
    [
        *[(mark, "utf-16-le", "UTF-16") for mark in (b"", codecs.BOM_UTF16_LE)],
        *[(mark, "utf-16-be", "UTF-16") for mark in (b"", codecs.BOM_UTF16_BE)],
        *[(mark, "utf-32-le", "UTF-32") for mark in (b"", codecs.BOM_UTF32_LE)],
        *[(mark, "utf-32-be", "UTF-32") for mark in (b"", codecs.BOM_UTF32_BE)],
    ],
)
def test_other_encodings_are_named_with_and_without_their_byte_order_marks(
    mark: bytes, encoding: str, name: str
) -> None:
    for text in (TEXT, "\u0101" + TEXT) if mark else (TEXT,):
        body = mark + text.encode(encoding)
        assert refused(body) == refused(gzip.compress(body)) == f"is text in {name}; JSON must be UTF-8"


def test_text_may_be_as_large_as_the_limit() -> None:
    packed = gzip.compress(BODY)
    rule = f"is larger than {len(BODY) - 1} bytes when it is unpacked; raise RACEPOOL_PAYLOAD_LIMIT"

    assert json_text(packed, len(BODY)) == BODY
    assert refused(packed, len(BODY) - 1) == rule
    assert json_text(BODY, 1) == BODY  # only what is unpacked has this limit


def test_no_more_than_the_limit_is_unpacked() -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as file:
        for _ in range(64):
            file.write(bytes(2**20))
    broken_after_the_limit = bomb.getvalue()[:-8]

    assert refused(broken_after_the_limit).startswith("is larger than 16,777,216 bytes")


@pytest.mark.parametrize("end", [2, 10, 20, -8, -1])
def test_gzip_file_that_was_cut_is_refused(end: int) -> None:
    assert refused(gzip.compress(BODY)[:end]).startswith("is no whole gzip file: ")


@pytest.mark.parametrize("at", [2, 12, -6])
def test_gzip_file_with_another_byte_is_refused(at: int) -> None:
    packed = bytearray(gzip.compress(BODY))
    packed[at] ^= 0xFF

    assert refused(bytes(packed)).startswith("is no whole gzip file: ")


def test_fault_of_the_encoding_names_the_first_byte_that_is_no_utf_8() -> None:
    assert body_fault(BODY) is None
    assert body_fault(b'{"a": "\x0a\xff\xfe"}') == (
        "is not UTF-8: it has the byte 0xff at 8; send the body as the tote sent it; "
        "if it is compressed, let the HTTP client unpack it"
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is empty"),
        (" \n", "the body is empty"),
        (b"<!DOCTYPE html><title>502 Bad Gateway</title>", "the body is HTML or XML, such as the error page"),
        ("\n<?xml version='1.0'?>", "the body is HTML or XML, such as the error page"),
        (zlib.compress(BODY, 1), "the body is compressed with deflate"),
        (zlib.compress(BODY, 9), "the body is compressed with deflate"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "the body is compressed with zstd"),
        (b"BZh91AY&SY", "the body is compressed with bzip2"),
        (b"\xfd7zXZ\x00\x00", "the body is compressed with xz"),
        (BODY + b"\n" + BODY, "trailing characters at line 2 column 1; a body holds one JSON value"),
        (BODY.decode() * 2, "a body holds one JSON value"),
    ],
    ids=range(11),
)
def test_body_that_is_no_json_is_named_for_what_it_is(body: bytes | str, told: str) -> None:
    with pytest.raises(InvalidRaceError) as refused:
        RaceData.parse(body)

    [error] = refused.value.errors
    assert error.message.startswith("Invalid JSON: ")
    assert told in error.message


@pytest.mark.parametrize("body", [bytes.fromhex("8b0380") + b"brotli\x03", zlib.compress(BODY)[2:-4]])
def test_compression_without_a_mark_is_named_as_a_chance(body: bytes) -> None:
    with pytest.raises(InvalidRaceError, match="if it is compressed, let the HTTP client unpack it"):
        RaceData.parse(body)
