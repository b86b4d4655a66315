"""The record of a dead task, as a file: the broker writes it, `racepool dead` reads it.

Each record is a file of its own, with one msgpack array: `["racepool-dead", format version, task id, given up at, run
timeout, attempts, checksum, payload]`. An attempt is `[worker, reason, signal or nil, assigned at, lost at]`. Instants
are in milliseconds since 1970 UTC, the run timeout is in milliseconds, the checksum is the CRC-32 of the payload. The
payload is a bin with a length of 32 bits; this module does not open it. It comes last, so a reader of all the rest
needs only the beginning of the file.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from racepool.protocol.messages import ID_BYTES, Id, Payload

FORMAT = "racepool-dead"
FORMAT_VERSION = 1
HEAD_BYTES = 2**19  # a head with a thousand attempts is smaller
LATEST_MS = 253_370_764_800_000  # 9999-01-01; an earlier instant can be shown in every time zone
MAX_RUN_TIMEOUT_MS = 2**53 - 1

_FIELDS = 8
_BIN_32 = b"\xc6"
_RECORD = re.compile(r"[0-9a-f]{32}\.dead")


class BadRecordError(ValueError):
    """These bytes are not a whole record that we can read; the text says why."""


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """One assignment of the task, which ended when the worker was lost. `signal` ended the worker, if that is known."""

    worker: str
    reason: str
    signal: int | None
    assigned_at_ms: int
    lost_at_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record without its payload: of that it has only the size and the checksum."""

    task_id: Id
    given_up_at_ms: int
    run_timeout_ms: int
    attempts: tuple[LostAttempt, ...]
    checksum: int
    payload_bytes: int

    def is_of(self, payload: Payload) -> bool:
        """Whether this is the payload of the dead task."""
        return len(payload) == self.payload_bytes and zlib.crc32(payload) == self.checksum


def directory_in(run_dir: Path) -> Path:
    """The directory of the records, in a run directory."""
    return run_dir / "dead"


def file_of(run_dir: Path, task_id: Id) -> Path:
    """The file of this task's record, whether it exists or not."""
    return directory_in(run_dir) / f"{task_id.hex()}.dead"


def is_record_name(name: str) -> bool:
    """Whether the record of some task would have this name."""
    return _RECORD.fullmatch(name) is not None


def pack_head(record: Record) -> bytes:
    """All bytes of a record before its payload."""
    attempts = [
        [each.worker, each.reason, each.signal, each.assigned_at_ms, each.lost_at_ms] for each in record.attempts
    ]
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(_FIELDS)
    for field in (
        FORMAT, FORMAT_VERSION, record.task_id, record.given_up_at_ms, record.run_timeout_ms, attempts, record.checksum
    ):  # fmt: skip
        packer.pack(field)
    head: bytes = packer.bytes()
    return head + _BIN_32 + record.payload_bytes.to_bytes(4, "big")


def unpack_head(start: bytes) -> tuple[Record, int]:
    """The record at the beginning of a file, and its size in bytes. All bytes after these are the payload.

    Raises:
        BadRecordError: the record is damaged, or has a format version that this racepool does not read.
    """
    unpacker = msgpack.Unpacker(
        max_buffer_size=HEAD_BYTES, max_array_len=1_000, max_map_len=0, max_ext_len=0, strict_map_key=True
    )
    unpacker.feed(start[:HEAD_BYTES])
    try:
        fields = _fields(unpacker)
        offset = unpacker.tell() + 5
    except BadRecordError:
        raise
    except Exception as error:  # noqa: BLE001  # msgpack's errors have no common base
        raise BadRecordError(f"is damaged, or no record of a dead task ({type(error).__name__})") from None
    if len(start) < offset or start[offset - 5 : offset - 4] != _BIN_32:
        raise BadRecordError("is damaged: it has no payload")
    return _record(fields, int.from_bytes(start[offset - 4 : offset], "big")), offset


def _fields(unpacker: Any) -> list[Any]:  # noqa: ANN401  # msgpack has no types
    """The fields of a record between its format version and its payload."""
    count = unpacker.read_array_header()
    kind = [unpacker.unpack() for _ in range(min(count, 2))]
    if kind[:1] != [FORMAT]:
        raise BadRecordError("is no record of a dead task")
    if kind != [FORMAT, FORMAT_VERSION]:
        raise BadRecordError(f"is of format version {kind[-1]!r}, this racepool reads {FORMAT_VERSION}")
    if count != _FIELDS:
        raise BadRecordError("is damaged: it has another number of fields")
    return [unpacker.unpack() for _ in range(_FIELDS - 3)]


def _record(fields: list[Any], payload_bytes: int) -> Record:
    task_id, given_up_at_ms, run_timeout_ms, attempts, checksum = fields
    if not (type(task_id) is bytes and len(task_id) == ID_BYTES):
        raise BadRecordError("is damaged: it names no task")
    if not (_is_whole(given_up_at_ms, LATEST_MS) and _is_whole(checksum, 2**32 - 1)):
        raise BadRecordError("is damaged: its instant or its checksum is out of range")
    if not (_is_whole(run_timeout_ms, MAX_RUN_TIMEOUT_MS) and run_timeout_ms):
        raise BadRecordError("is damaged: its run timeout is out of range")
    if not (type(attempts) is list and all(map(_is_attempt, attempts))):
        raise BadRecordError("is damaged: its attempts are none")
    lost = tuple(LostAttempt(*attempt) for attempt in attempts)
    return Record(Id(task_id), given_up_at_ms, run_timeout_ms, lost, checksum, payload_bytes)


def _is_attempt(value: Any) -> bool:  # noqa: ANN401  # any value, from the file
    if type(value) is not list or len(value) != 5:
        return False
    worker, reason, signal, *instants = value
    is_named = type(worker) is str and type(reason) is str
    return (
        is_named and (signal is None or _is_whole(signal, 64)) and all(_is_whole(each, LATEST_MS) for each in instants)
    )


def _is_whole(value: Any, at_most: int) -> bool:  # noqa: ANN401  # any value, from the file
    return type(value) is int and 0 <= value <= at_most
