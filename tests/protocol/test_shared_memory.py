import errno
import fcntl
import itertools
import mmap
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from racepool.protocol import shared_memory
from racepool.protocol.codec import pack
from racepool.protocol.frames import MAX_REFERENCE_BYTES
from racepool.protocol.messages import MAX_INT, Hello, Id
from racepool.protocol.parcel import Parcel
from racepool.protocol.processes import open_files
from racepool.protocol.shared_memory import (
    KEPT_S,
    MAX_KEPT,
    MAX_SEGMENT_BYTES,
    PLACE_BYTES,
    SEGMENT_BYTES,
    STAMP_BYTES,
    Reference,
    Segment,
    SegmentReader,
    UnreadableError,
)
from tests.running import ROOT

LIMIT = 2**24
BODY = os.urandom(100_000)


def read(frame: bytes, task_id: Id, limit_bytes: int) -> Parcel:
    """Reads with a new reader, which has no segment mapped."""
    reader = SegmentReader()
    try:
        return reader.read(frame, task_id, limit_bytes)
    finally:
        reader.close()


def an_id(number: int = 1) -> Id:
    return Id(number.to_bytes(16, "big"))


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment()
    yield made
    made.close()


def put(segment: Segment, number: int = 1, body: bytes = BODY) -> Reference:
    reference = segment.reference(an_id(number), Parcel(b"head", body))
    assert reference is not None
    return reference


def hello(segment: Segment, pid: int | None = None) -> Hello:
    return Hello(an_id(), 1, os.getpid() if pid is None else pid, 0, *segment.name)


def test_payload_is_read_as_it_was_written(segment: Segment) -> None:
    references = {number: put(segment, number, bytes([number]) * 70_000) for number in range(1, 20)}

    for number, reference in references.items():
        assert read(reference.packed(), an_id(number), LIMIT) == Parcel(b"head", bytes([number]) * 70_000)


def test_task_that_is_submitted_again_keeps_its_place(segment: Segment) -> None:
    assert put(segment) == put(segment)


def test_full_segment_has_room_again_when_a_slot_is_freed(segment: Segment) -> None:
    body = bytes(SEGMENT_BYTES // 4 - STAMP_BYTES)
    places = [put(segment, number, body).offset for number in range(4)]

    assert segment.reference(an_id(9), Parcel(b"", b"x")) is None
    segment.free(an_id(2))
    assert put(segment, 9, body).offset == places[2]


def test_body_larger_than_the_segment_has_no_place(segment: Segment) -> None:
    assert segment.reference(an_id(), Parcel(b"", bytes(SEGMENT_BYTES))) is None


def test_slots_never_overlap_whatever_comes_and_goes(segment: Segment) -> None:
    sizes = [40_000, 900_000, 70_000, 2_000_000, 410_000]
    held: dict[int, bytes] = {}
    for number in range(1, 300):
        body = bytes([number % 256]) * sizes[number % 5]
        if segment.reference(an_id(number), Parcel(b"", body)) is not None:
            held[number] = body
        if number % 3 == 0 and held:
            segment.free(an_id(gone := next(iter(held))))
            del held[gone]

        newest = max(held)
        assert read(put(segment, newest, held[newest]).packed(), an_id(newest), LIMIT).body == held[newest]
    assert all(read(put(segment, each, body).packed(), an_id(each), LIMIT).body == body for each, body in held.items())


def test_slot_that_was_freed_is_unreadable(segment: Segment) -> None:
    reference = put(segment)
    segment.free(an_id())

    with pytest.raises(UnreadableError, match="waits for it no more"):
        read(reference.packed(), an_id(), LIMIT)


def test_slot_of_another_task_is_unreadable(segment: Segment) -> None:
    with pytest.raises(UnreadableError, match="waits for it no more"):
        read(put(segment).packed(), an_id(2), LIMIT)


@dataclass
class Overtaken:
    """A mapped segment whose slot changes hands just before or after its body is read."""

    memory: mmap.mmap
    change: Callable[[], object]
    is_before: bool

    def __getitem__(self, part: slice) -> bytes:
        is_body = part.stop - part.start > STAMP_BYTES
        if is_body and self.is_before:
            self.change()
        read = self.memory[part]
        if is_body and not self.is_before:
            self.change()
        return read

    def close(self) -> None:
        self.memory.close()


@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "freed"])
def test_slot_that_changes_hands_between_the_two_looks_is_noticed(
    segment: Segment, *, is_before: bool, is_taken: bool
) -> None:
    reference = put(segment)
    reader = SegmentReader()
    assert reader.read(reference.packed(), an_id(), LIMIT).body == BODY

    def change() -> None:
        segment.free(an_id())
        if is_taken:
            assert put(segment, 2, bytes(len(BODY))).offset == reference.offset

    ((key, memory),) = reader._mapped.items()
    reader._mapped[key] = cast("mmap.mmap", Overtaken(memory, change, is_before))
    with pytest.raises(UnreadableError, match="waits for it no more"):
        reader.read(reference.packed(), an_id(), LIMIT)
    reader.close()


READER = """
import sys
from racepool.protocol.messages import Id
from racepool.protocol.shared_memory import SegmentReader, UnreadableError
reader = SegmentReader()
for line in sys.stdin:
    task_id, reference = map(bytes.fromhex, line.split())
    try:
        body = reader.read(reference, Id(task_id), 2**24).body
    except UnreadableError:
        print("refused", flush=True)
    else:
        print("whole" if body == task_id[-1:] * 500_000 else "mixture", flush=True)
"""


def test_slot_that_is_reused_while_it_is_read_never_gives_a_mixture(segment: Segment) -> None:
    """Tasks take turns in one slot, each of one repeated byte; the reader is another process."""
    told: dict[str, int] = {"whole": 0, "refused": 0}
    command = [sys.executable, "-c", READER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for turn in range(400):
            number = 1 + turn % 200
            reference = put(segment, number, number.to_bytes() * 500_000)
            reader.stdin.write(f"{an_id(number).hex()} {reference.packed().hex()}\n")
            reader.stdin.flush()
            answer = reader.stdout.readline().strip() if turn % 4 == 0 else ""
            assert answer in ("whole", ""), "nobody had touched it"
            for _ in range(turn % 100 * 20):  # so that each moment of the reading has its turn
                pass
            segment.free(an_id(number))
            put(segment, 250, b"\xfa" * 500_000)
            segment.free(an_id(250))
            told[answer or reader.stdout.readline().strip()] += 1
        reader.stdin.close()

    assert min(told.values()) > 0


def test_slot_begins_in_the_first_gap_that_is_large_enough(segment: Segment) -> None:
    offsets = [put(segment, number, bytes(size)).offset for number, size in ((1, 40_000), (2, 50_000), (3, 60_000))]
    segment.free(an_id(2))

    beyond = put(segment, 4, bytes(50_001)).offset
    within = put(segment, 5, bytes(50_000)).offset

    assert (beyond, within) == (offsets[2] + STAMP_BYTES + 60_000, offsets[1])


def test_segment_holds_a_body_up_to_its_last_byte(segment: Segment) -> None:
    largest = SEGMENT_BYTES - STAMP_BYTES

    assert segment.reference(an_id(1), Parcel(b"", bytes(largest + 1))) is None
    assert put(segment, 2, bytes(largest)).end == SEGMENT_BYTES


def test_closed_segment_is_unreadable_even_if_its_descriptor_is_another_file_now() -> None:
    segment = Segment()
    reference = put(segment)
    segment.close()
    with pytest.raises(UnreadableError):
        read(reference.packed(), an_id(), LIMIT)

    pipe = os.pipe()
    os.dup2(pipe[0], reference.descriptor)
    try:
        with pytest.raises(UnreadableError, match="closed the segment"):
            read(reference.packed(), an_id(), LIMIT)
    finally:
        for descriptor in {*pipe, reference.descriptor}:
            os.close(descriptor)


def test_another_segment_under_the_same_descriptor_is_not_taken_for_it() -> None:
    first = Segment()
    reference = put(first)
    first.close()
    second = Segment()
    put(second)

    assert second.name[0] == reference.descriptor
    with pytest.raises(UnreadableError, match="closed the segment"):
        read(reference.packed(), an_id(), LIMIT)
    second.close()


def test_segment_cannot_be_shrunk_under_its_readers(segment: Segment) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(segment.name[0], 4096)


def test_payload_of_the_limit_is_read(segment: Segment) -> None:
    assert read(put(segment).packed(), an_id(), len(BODY)).body == BODY


def test_payload_beyond_the_limit_is_not_read(segment: Segment) -> None:
    with pytest.raises(UnreadableError, match="100000 bytes are more"):
        read(put(segment).packed(), an_id(), 99_999)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        pack([1, 2, 3]),
        pack("reference"),
        pack([1, 2, 3, 4, 5, 6, "head"]),
        pack([-1, 2, 3, 4, 5, 6, b""]),
        pack([True, 2, 3, 4, 5, 6, b""]),
        pack([1, 2.0, 3, 4, 5, 6, b""]),
        pack([2**63, 2**63, 2**63, 1, 2**63, 2**23, b""]),
        pack([os.getpid(), 0, Path("/proc/self/fd/0").stat().st_ino, 1, 0, 10, b""]),
    ],
    ids=itertools.count(),
)
def test_broken_or_hostile_reference_is_unreadable(frame: bytes) -> None:
    with pytest.raises(UnreadableError):
        read(frame, an_id(), LIMIT)


def test_offset_beyond_the_segment_is_unreadable(segment: Segment) -> None:
    place = put(segment)
    for offset in (SEGMENT_BYTES - 50_000, SEGMENT_BYTES, 2**62, 2**63 - 1):
        beyond = replace(place, offset=offset)
        with pytest.raises(UnreadableError):
            read(beyond.packed(), an_id(), LIMIT)


def test_segment_is_readable_for_whom_the_kernel_says_owns_it(segment: Segment) -> None:
    reader = SegmentReader()

    assert reader.can_read(hello(segment), os.getpid())
    assert not reader.can_read(hello(segment), None)
    assert not reader.can_read(hello(segment), 1)
    assert not reader.can_read(hello(segment, pid=1), 1)
    assert not reader.can_read(Hello(an_id(), 1, os.getpid(), 0), os.getpid())


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:racepool")


def test_reader_lets_go_of_segments_that_it_has_not_read_from_for_a_while(
    segment: Segment, wait_until: Callable[..., None]
) -> None:
    reader, frame, before = SegmentReader(), put(segment).packed(), mappings()
    reader.read(frame, an_id(), LIMIT)
    reader.let_go()
    assert mappings() == before + 1

    def is_gone() -> bool:
        reader.let_go()
        return mappings() == before

    wait_until(is_gone, KEPT_S + 5)
    assert reader.read(frame, an_id(), LIMIT).body == BODY


def test_each_read_keeps_the_segments_mapped(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    now, before = [100.0], mappings()
    monkeypatch.setattr(shared_memory, "clock", SimpleNamespace(now=lambda: now[0]))
    reader, frame = SegmentReader(), put(segment).packed()

    for at in (100.0, 100.0 + 0.9 * KEPT_S):
        now[0] = at
        reader.read(frame, an_id(), LIMIT)
    now[0] = 100.0 + 1.8 * KEPT_S
    reader.let_go()
    assert mappings() == before + 1

    now[0] = 100.0 + 2.0 * KEPT_S
    reader.let_go()
    assert mappings() == before


def test_reader_holds_few_segments_at_once() -> None:
    reader, before = SegmentReader(), mappings()
    segments = [Segment() for _ in range(3 * MAX_KEPT)]
    for each in segments:
        assert reader.read(put(each).packed(), an_id(), LIMIT).body == BODY
        assert mappings() - before <= len(segments) + MAX_KEPT
    for each in segments:
        each.close()
    reader.close()
    assert mappings() == before


def test_segment_that_is_not_sealed_is_not_mapped() -> None:
    descriptor = os.memfd_create("racepool")
    os.ftruncate(descriptor, 10_000)
    reference = Reference(os.getpid(), descriptor, os.fstat(descriptor).st_ino, 1, 0, 100, b"")

    with pytest.raises(UnreadableError, match="sealed"):
        read(reference.packed(), an_id(), LIMIT)
    os.close(descriptor)


def foreign(name: str, size_bytes: int, flags: int = 0) -> Iterator[int]:
    """A sealed memfd that another client may have made."""
    try:
        descriptor = os.memfd_create(name, os.MFD_ALLOW_SEALING | flags)
        os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        pytest.skip(f"this kernel has no such memory: {error}")
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("name", "size_bytes", "flags", "reason"),
    [
        ("racepool", 0, 0, "empty"),
        ("racepool", 2**21, os.MFD_HUGETLB, "huge pages"),
        ("racepool", MAX_SEGMENT_BYTES + 1, 0, "more than"),
        ("racepool", 2**40, 0, "more than"),
        ("racepool", 2**63 - 1, 0, "more than"),
        ("other", 10_000, 0, "closed the segment"),
    ],
)
def test_strange_segment_is_not_mapped(name: str, size_bytes: int, flags: int, reason: str) -> None:
    before = open_files()
    for descriptor in foreign(name, size_bytes, flags):
        inode = os.fstat(descriptor).st_ino
        with pytest.raises(UnreadableError, match=reason):
            read(Reference(os.getpid(), descriptor, inode, 1, 0, 100, b"").packed(), an_id(), LIMIT)
        assert not SegmentReader().can_read(Hello(an_id(), 1, os.getpid(), 0, descriptor, inode), os.getpid())
    assert open_files() == before


def test_sparse_segment_and_one_with_a_hole_read_as_zeros() -> None:
    for descriptor in foreign("racepool", MAX_SEGMENT_BYTES):
        inode = os.fstat(descriptor).st_ino
        at = MAX_SEGMENT_BYTES - 2**20
        reference = Reference(os.getpid(), descriptor, inode, 1, at, 2**20 - STAMP_BYTES, b"")
        os.pwrite(descriptor, reference.stamp(an_id()), at)

        assert read(reference.packed(), an_id(), LIMIT).body == bytes(2**20 - STAMP_BYTES)


def test_descriptor_that_becomes_a_pipe_after_the_check_is_not_opened(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client replaces the descriptor after the reader has looked at it, and before it opens the segment."""
    frame, descriptor, true_open = put(segment).packed(), segment.name[0], os.open
    os.mkfifo(tmp_path / "pipe")
    kept, pipe = os.dup(descriptor), true_open(tmp_path / "pipe", os.O_RDWR)

    def opening(path: str, flags: int) -> int:
        if not flags & os.O_PATH:
            os.dup2(pipe, descriptor)
        return true_open(path, flags)

    monkeypatch.setattr(os, "open", opening)
    try:
        assert read(frame, an_id(), LIMIT).body == BODY
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(pipe)


def test_payload_whose_head_is_too_long_for_a_reference_has_none(segment: Segment) -> None:
    longest = bytes(MAX_REFERENCE_BYTES - PLACE_BYTES)
    largest = replace(put(segment), pid=MAX_INT, descriptor=MAX_INT, inode=MAX_INT, number=MAX_INT, head=longest)

    assert segment.reference(an_id(2), Parcel(longest + b"x", BODY)) is None
    assert segment.reference(an_id(3), Parcel(longest, BODY)) is not None
    assert len(largest.packed()) <= MAX_REFERENCE_BYTES


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdd" + (2**24).to_bytes(4, "big") + b"\x90" * 2**24,
        b"\x97\1\2\3\4\5\6\xdd" + (2**24).to_bytes(4, "big") + b"\x90" * 2**24,
        b"\x97\1\2\3\4\5\6\xdd" + (60_000).to_bytes(4, "big") + b"\x90" * 60_000,
        pack([1, 2, 3, 4, 5, 6, bytes(MAX_REFERENCE_BYTES)]),
    ],
    ids=["of empty arrays", "with a head of arrays", "short, with a head of arrays", "with a long head"],
)
def test_reference_that_would_cost_memory_is_refused_before_anything_is_made_of_it(frame: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match="the reference"):
            Reference.unpacked(frame)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_segment_that_is_sealed_as_the_document_asks_is_mapped() -> None:
    descriptor = os.memfd_create("racepool of another language", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 10_000)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    reference = Reference(os.getpid(), descriptor, os.fstat(descriptor).st_ino, 1, 0, 100, b"head")
    os.pwrite(descriptor, reference.stamp(an_id()) + b"x" * 100, 0)

    assert read(reference.packed(), an_id(), LIMIT) == Parcel(b"head", b"x" * 100)
    os.close(descriptor)


def test_segment_that_cannot_be_made_whole_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", refuse)
    before = open_files()

    assert [Segment.made() for _ in range(5)] == [None] * 5

    assert open_files() == before


def test_segment_that_nobody_closes_leaves_no_descriptor() -> None:
    before = open_files()

    for _ in range(5):
        Segment()

    assert open_files() == before


def test_nothing_is_left_of_a_client_that_was_killed() -> None:
    """Its memory is in no file system, and a reader closes all that it has opened."""
    program = (
        "import os, sys; from racepool.protocol.shared_memory import Segment;"
        "from racepool.protocol.parcel import Parcel;"
        "from racepool.protocol.messages import Id; s = Segment();"
        "r = s.reference(Id(bytes(15) + b'x'), Parcel(b'', b'y' * 50_000));"
        "print(r.packed().hex(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        reference = bytes.fromhex(client.stdout.readline())
        task_id = Id(bytes(15) + b"x")
        assert read(reference, task_id, LIMIT).body == b"y" * 50_000
        client.kill()
        client.wait(10)

        with pytest.raises(UnreadableError, match=re.escape(f"/proc/{client.pid}/fd/")):
            read(reference, task_id, LIMIT)
    mine = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [name for name in mine if name.startswith("/memfd:racepool")]
