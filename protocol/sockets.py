"""The socket options that every measured trap asks for, and the one bounded way to receive. Opens no message."""

import ctypes
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import AF_UNIX, SHUT_RDWR, SO_DOMAIN, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, fromfd
from socket import socket as KernelSocket  # noqa: N812  # a class

import zmq

from racepool.protocol.endpoints import ANY_HOST, is_tcp
from racepool.protocol.messages import Payload

RECONNECT_MS = 50
HANDSHAKE_MS = 2_000
HEADER_ALLOWANCE = 1_024
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 5, 2, 3
UNACKNOWLEDGED_MS = 1_000 * (KEEPALIVE_IDLE_S + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_S)
MAX_FRAMES = 4
ZERO_COPY_BYTES = 65_536

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both halves in Z85, as libzmq takes them."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """What a client or worker needs: its own pair, and the broker's public key, by which it knows the broker."""

    own: KeyPair
    broker: bytes


def dealer(context: Context, endpoint: str, keys: PeerKeys | None = None) -> Socket:
    """A connected DEALER of one session; never reconnected to another session, but closed and replaced.

    Over tcp it is encrypted with `keys`, and talks to nobody but the broker of that key; over ipc they are not needed.

    No IDENTITY (a reused one is ignored or hijacked), no high-water mark (what is outstanding is bounded by its owner;
    a full receive pipe can abort the process), no linger (no stale copy may outlive its session).
    """
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    connect(socket, endpoint, keys)
    return socket


def connect(socket: Socket, endpoint: str, keys: PeerKeys | None) -> None:
    """Connects a socket of any kind, as `dealer` does. What the broker binds as "all addresses" is met on loopback."""
    if is_tcp(endpoint):
        _set_for_tcp(socket, endpoint)
        if keys is not None:
            socket.set(zmq.CURVE_SERVERKEY, keys.broker)
            socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
            socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)
    socket.connect(endpoint.replace(f"tcp://{ANY_HOST}:", "tcp://127.0.0.1:"))


def say(socket: Socket, frames: Sequence[Payload]) -> None:
    """Sends through a connected socket without waiting.

    What it sends goes nowhere if a broker has refused its key: then libzmq gives the connection up for good, and a
    send that waits would do so for ever. That session is replaced, as any that nobody answers.
    """
    with suppress(zmq.Again):
        send(socket, frames)


def send(socket: Socket, frames: Sequence[Payload]) -> None:
    """Sends one multipart without waiting.

    Not `send_multipart`, which takes three times as long: the flags are plain numbers here.

    Raises:
        zmq.ZMQError: EAGAIN or EHOSTUNREACH if the peer reads nothing or is gone; then none of it was sent.
    """
    *heads, last = frames
    for frame in heads:
        socket.send(frame, _MORE)
    socket.send(last, _NOBLOCK, copy=len(last) < ZERO_COPY_BYTES)


@dataclass(frozen=True, slots=True)
class Guard:
    """Has a bound socket ask its context's ZAP handler about each peer's key; without a handler nobody gets in."""

    domain: str
    keys: KeyPair


def router(
    context: Context, endpoint: str, *, send_limit: int, payload_limit: int, guard: Guard | None = None
) -> Socket:
    """A bound ROUTER that reports what it cannot deliver.

    Args:
        context: of the calling thread's program.
        endpoint: where to bind.
        send_limit: messages held for one peer that does not read; the next send to it fails with EAGAIN.
        payload_limit: bytes; a peer that sends a larger frame is disconnected.
        guard: over tcp, who is let in; None = anybody who can connect.
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
    if guard is not None:
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, guard.keys.secret)
        socket.set(zmq.ZAP_DOMAIN, guard.domain.encode())
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # else a broker without a ZAP handler would let every key in
    if is_tcp(endpoint):
        _set_for_tcp(socket, endpoint)
    socket.bind(endpoint)
    return socket


def _set_for_tcp(socket: Socket, endpoint: str) -> None:
    """The connection of a host that has gone without a word is closed by the kernel; it would else be kept for ever."""
    socket.set(zmq.IPV6, "[" in endpoint)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES)
    socket.set(zmq.TCP_MAXRT, UNACKNOWLEDGED_MS)  # the kernel probes none that has data under way


def _make_routing_ids_unpredictable() -> None:
    """Seeds the C library's rand(), from which libzmq numbers a ROUTER's peers and which it leaves unseeded.

    A peer that names itself by a number that is still to be given aborts the process.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


def receive(socket: Socket) -> list[bytes] | None:
    """One multipart without waiting, None if there is none; of an oversized one only the first frames are kept."""
    try:
        frame = socket.recv(_NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(_NOBLOCK, copy=False)
        if len(frames) < MAX_FRAMES:
            frames.append(frame.bytes)
    return frames


def receive_from(socket: Socket) -> tuple[bytes, list[Payload], zmq.Frame | None] | None:
    """As `receive`, for a ROUTER: the peer, its frames, and the first of them as libzmq holds it (see `sender_pid`).

    They are copied: libzmq's own would cost up to some kilobytes more, each, while they wait. Where as many as
    MAX_FRAMES come back there may be more: `skip` them before the next message.
    """
    try:
        peer = socket.recv(_NOBLOCK)
    except zmq.Again:
        return None
    source = frame = socket.recv(_NOBLOCK, copy=False)  # there always is one, and its rest is there with it
    frames: list[Payload] = [frame.bytes]
    while frame.more and len(frames) < MAX_FRAMES:
        frame = socket.recv(_NOBLOCK, copy=False)
        frames.append(frame.bytes)
    return peer, frames, source


def skip(socket: Socket, limit: int) -> bool:
    """Reads on in a multipart that was left, so many frames at most; true if none of it is left.

    libzmq lets no other message of this socket come before its end.
    """
    if not socket.get(zmq.RCVMORE):
        return True
    return any(not socket.recv(_NOBLOCK, copy=False).more for _ in range(limit))


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


def sender_key(source: zmq.Frame | None) -> str | None:
    """The public key with which the sender of this frame was let in; None if there was none."""
    if source is None:
        return None
    try:
        return str(source.get("User-Id"))
    except zmq.ZMQError:
        return None


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection of a bound tcp socket, from this process's descriptor to that address."""

    descriptor: int
    address: object

    @property
    def is_open(self) -> bool:
        """Whether the descriptor is still this connection's: libzmq may have closed it, and another have its number."""
        try:
            with KernelSocket(fileno=os.dup(self.descriptor)) as ours:
                return bool(ours.getpeername() == self.address)
        except OSError:
            return False

    def cut(self) -> None:
        """Ends it: no option of libzmq closes the connection of a single peer."""
        with suppress(OSError), KernelSocket(fileno=os.dup(self.descriptor)) as ours:
            if ours.getpeername() == self.address:
                ours.shutdown(SHUT_RDWR)


def sender_connection(source: zmq.Frame | None) -> Connection | None:
    """The connection through which this frame came; None if it is no more."""
    if source is None:
        return None
    try:
        descriptor = source.get(zmq.SRCFD)
        with KernelSocket(fileno=os.dup(descriptor)) as ours:
            return Connection(descriptor, ours.getpeername())
    except (OSError, zmq.ZMQError):
        return None
