"""The socket options that every measured trap asks for, and the one bounded way to receive. Opens no message."""

import ctypes
import os
import struct
from socket import AF_UNIX, SO_DOMAIN, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, fromfd

import zmq

from protocol.messages import Payload

RECONNECT_MS = 50
HANDSHAKE_MS = 2_000
HEADER_ALLOWANCE = 1_024
MAX_FRAMES = 4
ZERO_COPY_BYTES = 65_536

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


def dealer(context: Context, endpoint: str) -> Socket:
    """A connected DEALER of one session; never reconnected to another session, but closed and replaced.

    No IDENTITY (a reused one is ignored or hijacked), no high-water mark (what is outstanding is bounded by its owner;
    a full receive pipe can abort the process), no linger (no stale copy may outlive its session).
    """
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.connect(endpoint)
    return socket


def router(context: Context, endpoint: str, *, send_limit: int, payload_limit: int) -> Socket:
    """A bound ROUTER that reports what it cannot deliver.

    Args:
        context: of the calling thread's program.
        endpoint: where to bind.
        send_limit: messages held for one peer that does not read; the next send to it fails with EAGAIN.
        payload_limit: bytes; a peer that sends a larger frame is disconnected.
    """
    _make_routing_ids_unpredictable()
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, send_limit)
    socket.set(zmq.RCVHWM, 1_000)
    socket.set(zmq.MAXMSGSIZE, payload_limit + HEADER_ALLOWANCE)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.BACKLOG, 1_024)
    socket.bind(endpoint)
    return socket


def _make_routing_ids_unpredictable() -> None:
    """Seeds the C library's rand(), from which libzmq numbers a ROUTER's peers and which it leaves unseeded.

    A peer that names itself by a number that is still to be given aborts the process.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


def receive(socket: Socket) -> list[bytes] | None:
    """One multipart without waiting, None if there is none; of an oversized one only the first frames are kept."""
    try:
        frames = [socket.recv(zmq.NOBLOCK)]
    except zmq.Again:
        return None
    while socket.get(zmq.RCVMORE):
        frame = socket.recv(zmq.NOBLOCK)
        if len(frames) < MAX_FRAMES:
            frames.append(frame)
    return frames


def receive_from(socket: Socket) -> tuple[bytes, list[Payload], zmq.Frame | None] | None:
    """As `receive`, for a ROUTER: the peer, its frames, and the first of them as libzmq holds it (see `sender_pid`).

    Large frames are not copied. Small ones are: libzmq's own would cost several times their size while they wait.
    Where as many as MAX_FRAMES come back there may be more: `skip` them before the next message.
    """
    try:
        peer = socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None
    source = frame = socket.recv(zmq.NOBLOCK, copy=False)  # there always is one, and its rest is there with it
    frames: list[Payload] = [_kept(frame)]
    while frame.more and len(frames) < MAX_FRAMES:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        frames.append(_kept(frame))
    return peer, frames, source


def _kept(frame: zmq.Frame) -> Payload:
    return frame.bytes if len(frame) < ZERO_COPY_BYTES else frame.buffer


def skip(socket: Socket, limit: int) -> bool:
    """Reads on in a multipart that was left, so many frames at most; true if none of it is left.

    libzmq lets no other message of this socket come before its end.
    """
    if not socket.get(zmq.RCVMORE):
        return True
    return any(not socket.recv(zmq.NOBLOCK, copy=False).more for _ in range(limit))


def sender_pid(source: zmq.Frame | None) -> int | None:
    """The process that sent this frame, as the kernel knows it; None if it came over tcp or the peer has gone."""
    if source is None:
        return None
    try:
        descriptor = source.get(zmq.SRCFD)
        with fromfd(descriptor, AF_UNIX, SOCK_STREAM) as peer:
            if peer.getsockopt(SOL_SOCKET, SO_DOMAIN) != AF_UNIX:
                return None
            pid, _, _ = struct.unpack("3i", peer.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i")))
    except (OSError, zmq.ZMQError):
        return None
    return int(pid) or None  # 0: a process of another pid namespace
