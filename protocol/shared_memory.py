"""Large payloads on one host: the client's memfd, and what names a place in it. Knows no race and no socket.

A payload goes into the client's segment once and is read from there once, by the worker; what travels is a reference of
some bytes. The segment has no name in any file system and lives in its client's descriptor table. Readers find it
through /proc, and let go of it when they have not read from it for a while: nothing is left of it when a client dies,
however it dies. Both sides map it: a system call that copies as much takes four times as long.

A slot is a stamp and the payload's body; the stamp is the task's id and a number that no other slot has had. It is
checked before and after the body was read: a slot that was given to another task in between is told from the right one,
and only a task whose answer nobody waits for any more has no slot. The segment is sealed against growing and shrinking,
and its memory is asked for before it is written to: otherwise one look at it could end a process by SIGBUS.
"""

import fcntl
import mmap
import os
import time
import weakref
from bisect import insort
from dataclasses import dataclass
from pathlib import Path

from racepool.protocol.codec import pack
from racepool.protocol.failures import BadPayloadError, unpack_array
from racepool.protocol.messages import ID_BYTES, MAX_INT, Hello, Id, Payload
from racepool.protocol.parcel import Parcel

SEGMENT_BYTES = 16 * 2**20
SHARE_FROM_BYTES = 32_768
STAMP_BYTES = 24
KEPT_S = 1.0
MAX_KEPT = 8

_NOBODY = bytes(STAMP_BYTES)
_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK  # which cannot be taken back


class UnreadableError(Exception):
    """The reference leads to no payload of this task: its client is gone or waits no more, or /proc is closed to us."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a payload is: its head as such, its body in a slot of a process's segment."""

    pid: int
    descriptor: int
    inode: int
    number: int
    offset: int
    size_bytes: int
    head: bytes

    def packed(self) -> bytes:
        """What travels in the payload frame."""
        return pack([self.pid, self.descriptor, self.inode, self.number, self.offset, self.size_bytes, self.head])

    @staticmethod
    def unpacked(payload: Payload) -> "Reference":
        """What `packed` packed.

        Raises:
            UnreadableError: it is anything else.
        """
        try:
            *place, head = unpack_array(payload, 7)
        except BadPayloadError as error:
            raise UnreadableError(f"the reference {error}") from None
        if type(head) is not bytes or not all(type(value) is int and 0 <= value <= MAX_INT for value in place):
            raise UnreadableError("the reference breaks its rule")
        pid, descriptor, inode, number, offset, size_bytes = place
        return Reference(pid, descriptor, inode, number, offset, size_bytes, head)

    def stamp(self, task_id: Id) -> bytes:
        """What stands before the body."""
        return task_id + self.number.to_bytes(STAMP_BYTES - ID_BYTES, "big")

    @property
    def end(self) -> int:
        """Where the slot ends."""
        return self.offset + STAMP_BYTES + self.size_bytes


class Segment:
    """The writer's end: one memfd with room for what a client has outstanding.

    Its owner frees a slot when the task has its answer. Not thread-safe.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("racepool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._end = weakref.finalize(self, os.close, self._descriptor)  # also of one that could not be made whole
        self._end.atexit = False
        os.ftruncate(self._descriptor, SEGMENT_BYTES)  # of which the kernel provides what is written to
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self._descriptor, SEGMENT_BYTES)
        self._backed_bytes = 0
        self._inode = os.fstat(self._descriptor).st_ino
        self._pid = os.getpid()
        self._number = 0
        self._references: dict[Id, Reference] = {}
        self._used: list[tuple[int, int]] = []

    @staticmethod
    def made() -> "Segment | None":
        """A segment, None where the kernel grants none: then payloads travel."""
        try:
            return Segment()
        except OSError:
            return None

    @property
    def name(self) -> tuple[int, int]:
        """Descriptor and inode, by which a HELLO names it."""
        return self._descriptor, self._inode

    def reference(self, task_id: Id, parcel: Parcel) -> Reference | None:
        """The place of this task's payload, which is written there unless it is already; None if there is no room."""
        known = self._references.get(task_id)
        if known is not None:
            return known
        offset = self._gap(STAMP_BYTES + len(parcel.body))
        if offset is None:
            return None
        self._number += 1
        size_bytes = len(parcel.body)
        made = Reference(self._pid, self._descriptor, self._inode, self._number, offset, size_bytes, parcel.head)
        if not self._is_backed(made.end):
            return None
        self._memory[offset + STAMP_BYTES : made.end] = parcel.body
        self._memory[offset : offset + STAMP_BYTES] = made.stamp(task_id)
        insort(self._used, (offset, made.end))
        self._references[task_id] = made
        return made

    def free(self, task_id: Id) -> None:
        """Takes the slot back, if the task has one."""
        reference = self._references.pop(task_id, None)
        if reference is not None:
            self._memory[reference.offset : reference.offset + STAMP_BYTES] = _NOBODY
            self._used.remove((reference.offset, reference.end))

    def close(self) -> None:
        """Gives the memory back."""
        self._memory.close()
        self._end()

    def _is_backed(self, end: int) -> bool:
        """Whether there is memory up to this place; the kernel gives it for good."""
        if end > self._backed_bytes:
            try:
                os.posix_fallocate(self._descriptor, self._backed_bytes, end - self._backed_bytes)
            except OSError:
                return False
            self._backed_bytes = end
        return True

    def _gap(self, size_bytes: int) -> int | None:
        """Where so much fits first."""
        start = 0
        for begin, end in self._used:
            if begin - start >= size_bytes:
                return start
            start = end
        return start if SEGMENT_BYTES - start >= size_bytes else None


class SegmentReader:
    """The reader's end: payloads by reference, from the segments of any number of clients. Not thread-safe."""

    def __init__(self) -> None:
        self._mapped: dict[tuple[int, int, int], mmap.mmap] = {}
        self._read_at = 0.0

    def read(self, payload: Payload, task_id: Id, limit_bytes: int) -> Parcel:
        """The payload that a reference leads to.

        Args:
            payload: a payload frame of a task that is shared.
            task_id: whose payload it must be.
            limit_bytes: what its body may have at most.

        Raises:
            UnreadableError: it is not there, or no more.
        """
        reference = Reference.unpacked(payload)
        if reference.size_bytes > limit_bytes:
            raise UnreadableError(f"{reference.size_bytes} bytes are more than a payload may have")
        memory = self._memory_of(reference.pid, reference.descriptor, reference.inode)
        start, stamp = reference.offset + STAMP_BYTES, reference.stamp(task_id)
        is_before = memory[reference.offset : start] == stamp
        body = memory[start : reference.end]
        if not is_before or memory[reference.offset : start] != stamp or len(body) != reference.size_bytes:
            raise UnreadableError("its client waits for it no more")
        return Parcel(reference.head, body)

    def can_read(self, hello: Hello, pid: int | None) -> bool:
        """Whether this process can read the segment that a client's HELLO names, so that its neighbours can, too.

        Args:
            hello: what the client says of itself.
            pid: the client as the kernel knows it; None over tcp. A client that has another pid for itself lives in
                another namespace, where its references lead nowhere.
        """
        if not hello.segment_inode or hello.pid != pid:
            return False
        try:
            self._memory_of(hello.pid, hello.segment_fd, hello.segment_inode)
        except UnreadableError:
            return False
        return True

    def let_go(self) -> None:
        """Lets go of all segments if none was read from for a while. To be called now and then."""
        if self._mapped and time.monotonic() > self._read_at + KEPT_S:
            self.close()

    def close(self) -> None:
        """Lets go of all segments."""
        while self._mapped:
            self._mapped.popitem()[1].close()

    def _memory_of(self, pid: int, descriptor: int, inode: int) -> mmap.mmap:
        self._read_at = time.monotonic()
        key = (pid, descriptor, inode)
        memory = self._mapped.get(key)
        if memory is None:
            if len(self._mapped) >= MAX_KEPT:
                self.close()
            memory = self._mapped[key] = _mapped(*key)
        return memory


def _mapped(pid: int, descriptor: int, inode: int) -> mmap.mmap:
    """That very segment. Looked at before it is opened: the number may be a pipe's or a tty's now."""
    path = Path(f"/proc/{pid}/fd/{descriptor}")
    opened = None
    try:
        if path.stat().st_ino != inode or not str(path.readlink()).startswith("/memfd:racepool"):
            raise UnreadableError("its client has closed the segment")
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(opened).st_ino != inode or fcntl.fcntl(opened, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise UnreadableError("its client has closed the segment, or not sealed it")
        return mmap.mmap(opened, 0, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path} cannot be opened: {error}") from None
    finally:
        if opened is not None:
            os.close(opened)
