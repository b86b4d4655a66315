import zlib
from pathlib import Path

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from racepool.protocol.messages import Id
from racepool.protocol.quarantine import (
    HEAD_BYTES,
    LATEST_MS,
    MAX_RUN_TIMEOUT_MS,
    BadRecordError,
    LostAttempt,
    Record,
    file_of,
    is_record_name,
    pack_head,
    unpack_head,
)
from racepool.protocol.settings import Settings

INSTANTS = st.integers(0, LATEST_MS)
ATTEMPTS = st.builds(LostAttempt, st.text(), st.text(), st.none() | st.integers(0, 64), INSTANTS, INSTANTS)
PAYLOAD = b"\x93\xff any bytes at all"
ATTEMPT = LostAttempt("worker-0", "silence", 9, 1_000, 2_000)
FIELDS = ["racepool-dead", 1, b"0123456789abcdef", 3_000, 30_000, [["worker-0", "silence", 9, 1_000, 2_000]], 7, b"x"]


def record_of(payload: bytes, *attempts: LostAttempt) -> Record:
    return Record(Id(b"0123456789abcdef"), 3_000, 30_000, attempts, zlib.crc32(payload), len(payload))


WHOLE = pack_head(record_of(PAYLOAD, ATTEMPT)) + PAYLOAD


@given(
    task_id=st.binary(min_size=16, max_size=16).map(Id),
    given_up_at_ms=INSTANTS,
    run_timeout_ms=st.integers(1, MAX_RUN_TIMEOUT_MS),
    attempts=st.lists(ATTEMPTS, max_size=5),
    payload=st.binary(max_size=300),
)
def test_record_survives_beside_its_payload(
    task_id: Id, given_up_at_ms: int, run_timeout_ms: int, attempts: list[LostAttempt], payload: bytes
) -> None:
    record = Record(task_id, given_up_at_ms, run_timeout_ms, tuple(attempts), zlib.crc32(payload), len(payload))

    content = pack_head(record) + payload
    again, offset = unpack_head(content)

    assert again == record
    assert content[offset:] == payload
    assert again.is_of(payload)


def test_file_is_one_msgpack_array_that_any_program_can_read() -> None:
    assert msgpack.unpackb(WHOLE) == [
        "racepool-dead", 1, b"0123456789abcdef", 3_000, 30_000, [["worker-0", "silence", 9, 1_000, 2_000]],
        zlib.crc32(PAYLOAD), PAYLOAD,
    ]  # fmt: skip


def test_beginning_tells_all_but_the_payload() -> None:
    head = pack_head(record_of(PAYLOAD, ATTEMPT))

    assert unpack_head(head) == (record_of(PAYLOAD, ATTEMPT), len(head))


def test_most_attempts_that_a_setting_allows_fit_into_the_beginning() -> None:
    (most,) = [rule.le for rule in Settings.model_fields["max_attempts"].metadata if hasattr(rule, "le")]
    attempt = LostAttempt("\N{PILE OF POO}" * 64, "process_exit", None, LATEST_MS, LATEST_MS)

    head = pack_head(record_of(PAYLOAD, *[attempt] * most))

    assert len(head) <= HEAD_BYTES
    assert len(unpack_head(head)[0].attempts) == most


@given(payload=st.binary(max_size=100))
@example(payload=PAYLOAD[:-1])
@example(payload=PAYLOAD[:-1] + b"?")
def test_another_payload_is_told_from_the_one_that_was_given_up(payload: bytes) -> None:
    assert record_of(PAYLOAD).is_of(payload) == (payload == PAYLOAD)


@given(cut=st.integers(0, len(WHOLE) - len(PAYLOAD) - 1))
def test_beginning_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(BadRecordError):
        unpack_head(WHOLE[:cut])


@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_damaged_record_is_refused_or_its_payload_told_from_the_right_one(at: int, byte: int) -> None:
    content = WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]

    try:
        record, offset = unpack_head(content)
    except BadRecordError:
        return
    is_head_whole = content[:offset] == WHOLE[:offset]
    assert record.is_of(content[offset:]) == (content == WHOLE) or not is_head_whole


@given(content=st.binary(max_size=200) | st.recursive(st.integers() | st.binary(), st.lists).map(str).map(str.encode))
@example(content=b"")
@example(content=b'{"id": "race-1"}')
@example(content=b"\x98" * 5_000)
@example(content=b"\xdd\xff\xff\xff\xff" * 20)
def test_foreign_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BadRecordError, match=r"is damaged|is no record"):
        unpack_head(content)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, "another-format"),
        (0, b"racepool-dead"),
        (1, 2),
        (2, b"too short"),
        (2, "0123456789abcdef"),
        (3, LATEST_MS + 1),
        (3, -1),
        (3, 1.5),
        (3, True),
        (4, 0),
        (4, MAX_RUN_TIMEOUT_MS + 1),
        (5, None),
        (5, [["worker-0", "silence", 9, 1_000]]),
        (5, [["worker-0", "silence", "SIGKILL", 1_000, 2_000]]),
        (5, [["worker-0", "silence", 65, 1_000, 2_000]]),
        (5, [[b"worker-0", "silence", 9, 1_000, 2_000]]),
        (5, [["worker-0", None, 9, 1_000, 2_000]]),
        (5, [["worker-0", "silence", 9, 1_000, LATEST_MS + 1]]),
        (5, {"worker": "worker-0"}),
        (6, 2**32),
        (7, "text"),
        (7, 1),
    ],
)
def test_field_out_of_range_is_refused(index: int, value: object) -> None:
    fields = [*FIELDS[:index], value, *FIELDS[index + 1 :]]

    with pytest.raises(BadRecordError):
        unpack_head(msgpack.packb(fields))


def test_record_of_a_later_version_says_so() -> None:
    with pytest.raises(BadRecordError, match="is of format version 2, this racepool reads 1"):
        unpack_head(msgpack.packb(["racepool-dead", 2, "whatever follows"]))


def test_record_is_called_by_its_task() -> None:
    path = file_of(Path("/run/racepool"), Id(b"0123456789abcdef"))

    assert path == Path("/run/racepool/dead/30313233343536373839616263646566.dead")
    assert is_record_name(path.name)


@pytest.mark.parametrize(
    "name", ["30313233343536373839616263646566.unfinished", "notes.dead", "30313233343536373839616263646566.dead~"]
)
def test_other_files_are_no_records(name: str) -> None:
    assert not is_record_name(name)
