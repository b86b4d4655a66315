"""Large payloads on one host, in the client's shared memory. Knows no race and no socket. docs/design.md explains it.

The client writes the body of a payload into its segment once, and the worker reads it from there once. Only a small
reference travels through the broker. The segment is a memfd: it belongs to a descriptor of its client, and has no name
in any file system. Readers open it through /proc, and unmap it when they have not read from it for a while. So nothing
is left of it when its client dies, however it dies. Both sides map it, because a system call to copy the body takes
four times as long.

A slot is a stamp and the body of one payload. The stamp is the task id and a number that no other slot has had. The
reader checks the stamp before and after it copies the body, so it notices if the client has freed the slot meanwhile.
The client frees a slot only when nobody waits for the answer of that task any more.

The segment is sealed against growing and shrinking, and the client asks the kernel for the memory before it writes to
it. Without these two, an access to missing memory could end a process by SIGBUS.
"""

import fcntl
import mmap
import os
import weakref
from bisect import insort
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from racepool.protocol import clock
from racepool.protocol.codec import pack
from racepool.protocol.frames import MAX_REFERENCE_BYTES
from racepool.protocol.messages import ID_BYTES, MAX_INT, Hello, Id, Payload
from racepool.protocol.parcel import Parcel

SEGMENT_BYTES = 16 * 2**20
MAX_SEGMENT_BYTES = 16 * SEGMENT_BYTES  # of a client that is not ours; a larger one is not mapped
SHARE_FROM_BYTES = 32_768  # a smaller body travels in the message
STAMP_BYTES = 24
PLACE_BYTES = 64  # more than a reference has beside its head
KEPT_S = 1.0  # how long a reader keeps segments mapped after its last read
MAX_KEPT = 8  # how many segments a reader keeps mapped

_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
_decode = msgspec.msgpack.Decoder(tuple[_Number, _Number, _Number, _Number, _Number, _Number, bytes]).decode
_NO_STAMP = bytes(STAMP_BYTES)  # of a free slot
_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK  # cannot be removed


class UnreadableError(Exception):
    """The payload cannot be read: its client is gone or has freed the slot, or we may not read the client's /proc."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a payload is: the reference carries the head itself, and names the slot of the body."""

    pid: int  # of the client
    descriptor: int  # of the segment, in the client
    inode: int  # of the segment; tells whether the descriptor is still this segment
    number: int  # of the slot, as in its stamp
    offset: int  # where the slot begins in the segment, with its stamp
    size_bytes: int  # of the body, without the stamp
    head: bytes

    def packed(self) -> bytes:
        """The reference as the payload frame of a message."""
        return pack([self.pid, self.descriptor, self.inode, self.number, self.offset, self.size_bytes, self.head])

    @staticmethod
    def unpacked(payload: Payload) -> "Reference":
        """What `packed` packed.

        Raises:
            UnreadableError: the payload is not a reference.
        """
        if len(payload) > MAX_REFERENCE_BYTES:
            raise UnreadableError(f"the reference has more than {MAX_REFERENCE_BYTES} bytes")
        try:
            return Reference(*_decode(payload))  # stops at the first value that is not of its type
        except msgspec.MsgspecError as error:
            raise UnreadableError(f"the reference breaks its rule: {error}") from None

    def stamp(self, task_id: Id) -> bytes:
        """The bytes that stand before the body while the slot belongs to this task."""
        return task_id + self.number.to_bytes(STAMP_BYTES - ID_BYTES, "big")

    @property
    def end(self) -> int:
        """Where the slot ends in the segment."""
        return self.offset + STAMP_BYTES + self.size_bytes


class Segment:
    """The client's side: one memfd, in which each shared task has a slot until the client frees it. Not thread-safe."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("racepool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._end = weakref.finalize(self, os.close, self._descriptor)  # here, since a later step can fail
        self._end.atexit = False
        os.ftruncate(self._descriptor, SEGMENT_BYTES)  # the kernel provides memory only for the part that is used
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self._descriptor, SEGMENT_BYTES)
        self._backed_bytes = 0  # from the beginning, for which the kernel has given memory
        self._inode = os.fstat(self._descriptor).st_ino
        self._pid = os.getpid()
        self._number = 0
        self._references: dict[Id, Reference] = {}
        self._used: list[tuple[int, int]] = []  # (begin, end) of each slot, sorted

    @staticmethod
    def made() -> "Segment | None":
        """A segment; None if the kernel gives none. Then payloads travel in the messages."""
        try:
            return Segment()
        except OSError:
            return None

    @property
    def name(self) -> tuple[int, int]:
        """Descriptor and inode: a HELLO names the segment by them."""
        return self._descriptor, self._inode

    def reference(self, task_id: Id, parcel: Parcel) -> Reference | None:
        """The reference to this task's payload, which is written to a slot first; None if there is no room.

        A task that has a slot keeps it: its payload is not written again. There is no reference to a payload whose head
        is too long for one: that can be if `previous` has more than a thousand entrants.
        """
        known = self._references.get(task_id)
        if known is not None:
            return known
        if len(parcel.head) > MAX_REFERENCE_BYTES - PLACE_BYTES:
            return None
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
        """Frees the task's slot, if it has one: overwrites the stamp, so that no reader takes the body any more."""
        reference = self._references.pop(task_id, None)
        if reference is not None:
            self._memory[reference.offset : reference.offset + STAMP_BYTES] = _NO_STAMP
            self._used.remove((reference.offset, reference.end))

    def close(self) -> None:
        """Closes the segment: the kernel frees the memory when no reader maps it any more."""
        self._memory.close()
        self._end()

    def _is_backed(self, end: int) -> bool:
        """Whether there is memory up to this offset, after asking the kernel for what is missing."""
        if end > self._backed_bytes:
            try:
                os.posix_fallocate(self._descriptor, self._backed_bytes, end - self._backed_bytes)
            except OSError:
                return False
            self._backed_bytes = end
        return True

    def _gap(self, size_bytes: int) -> int | None:
        """The first offset at which a slot of this size fits; None if there is none."""
        start = 0
        for begin, end in self._used:
            if begin - start >= size_bytes:
                return start
            start = end
        return start if SEGMENT_BYTES - start >= size_bytes else None


class SegmentReader:
    """The reader's side: reads payloads by their references, from the segments of several clients. Not thread-safe."""

    def __init__(self) -> None:
        self._mapped: dict[tuple[int, int, int], mmap.mmap] = {}  # by pid, descriptor and inode
        self._read_at = 0.0

    def read(self, payload: Payload, task_id: Id, limit_bytes: int) -> Parcel:
        """The payload that a reference names.

        Args:
            payload: the payload frame of a shared task.
            task_id: the task; its id must be in the stamp.
            limit_bytes: the largest body that is read.

        Raises:
            UnreadableError: the payload is not there, or not there any more.
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
        """Whether this process can read the segment of a client. Then workers on this host can read it, too.

        Args:
            hello: the client's HELLO, which names the segment.
            pid: the client's pid as the kernel tells us; None over tcp. If the client has another pid for itself, it
                lives in another pid namespace, and the pid in its references is wrong here.
        """
        if not hello.segment_inode or hello.pid != pid:
            return False
        try:
            self._memory_of(hello.pid, hello.segment_fd, hello.segment_inode)
        except UnreadableError:
            return False
        return True

    def let_go(self) -> None:
        """Unmaps all segments if none was read from for KEPT_S. To be called now and then."""
        if self._mapped and clock.now() > self._read_at + KEPT_S:
            self.close()

    def close(self) -> None:
        """Unmaps all segments."""
        while self._mapped:
            self._mapped.popitem()[1].close()

    def _memory_of(self, pid: int, descriptor: int, inode: int) -> mmap.mmap:
        self._read_at = clock.now()
        key = (pid, descriptor, inode)
        memory = self._mapped.get(key)
        if memory is None:
            if len(self._mapped) >= MAX_KEPT:
                self.close()
            memory = self._mapped[key] = _mapped(*key)
        return memory


def _mapped(pid: int, descriptor: int, inode: int) -> mmap.mmap:
    """Maps this segment.

    The descriptor may be a pipe or a device by now, and to open that could block or do harm. So a handle (O_PATH) is
    opened first, which opens nothing, and what is checked is what is opened. Memory in huge pages is not mapped: an
    access to a page that the kernel does not have ends a process by SIGBUS.
    """
    path = Path(f"/proc/{pid}/fd/{descriptor}")
    handle = opened = None
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        same = f"/proc/self/fd/{handle}"
        if os.fstat(handle).st_ino != inode or not str(Path(same).readlink()).startswith("/memfd:racepool"):
            raise UnreadableError("its client has closed the segment")
        opened = os.open(same, os.O_RDONLY | os.O_CLOEXEC)
        if fcntl.fcntl(opened, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise UnreadableError("its client has not sealed the segment")
        if os.fstatvfs(opened).f_bsize != mmap.PAGESIZE:
            raise UnreadableError("its segment is made of huge pages")
        if os.fstat(opened).st_size > MAX_SEGMENT_BYTES:
            raise UnreadableError(f"its segment has more than {MAX_SEGMENT_BYTES} bytes")
        return mmap.mmap(opened, 0, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path} cannot be opened: {error}") from None
    finally:
        for each in (handle, opened):
            if each is not None:
                os.close(each)
