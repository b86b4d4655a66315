"""Sockets with the options that avoid each trap we measured, and bounded ways to send and receive. Opens no message."""

import ctypes
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import AF_UNIX, SHUT_RDWR, SO_DOMAIN, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, fromfd
from socket import socket as KernelSocket  # noqa: N812  # a class
from weakref import WeakKeyDictionary

import zmq

from racepool.protocol import own_directory
from racepool.protocol.endpoints import ANY_HOST, is_tcp, socket_path
from racepool.protocol.messages import Payload

RECONNECT_MS = 50
HANDSHAKE_MS = 2_000
HEADER_ALLOWANCE = 1_024
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 5, 2, 3
UNACKNOWLEDGED_MS = 1_000 * (KEEPALIVE_IDLE_S + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_S)
MAX_FRAMES = 4  # of one multipart; no message has more than two
ZERO_COPY_BYTES = 65_536  # libzmq copies a smaller frame, because that costs less

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

_directories: "WeakKeyDictionary[Context, list[int]]" = WeakKeyDictionary()
"""Descriptors of the directories in which a context's sockets are. libzmq may use them until the context ends."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The public and the secret half of a key, in Z85, as libzmq takes them."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """The keys of a client or worker: its own pair, and the public key that the broker must have."""

    own: KeyPair
    broker: bytes


def dealer(context: Context, endpoint: str, keys: PeerKeys | None = None) -> Socket:
    """A connected DEALER, for one session: for the next session, its owner closes it and makes another.

    Over tcp, `keys` encrypt the connection, and only the broker that has `keys.broker` can answer. Over ipc, keys are
    not used.

    No IDENTITY: a second socket with the same one is ignored, or takes over the first one's messages. No high-water
    mark: the owner bounds what is outstanding, and a full receive pipe can abort the process. No linger: no message may
    be sent after its session has ended.

    Raises:
        SettingsError, OSError: as `connect`.
    """
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    try:
        connect(socket, endpoint, keys)
    except BaseException:
        socket.close()
        raise
    return socket


def connect(socket: Socket, endpoint: str, keys: PeerKeys | None) -> None:
    """Connects a socket of any type, as `dealer` does. An endpoint with the host `*` is reached on loopback.

    Raises:
        SettingsError: another user can put a socket of theirs at the ipc endpoint.
        OSError: the directory of the ipc endpoint does not exist, or no descriptor is left.
    """
    if is_tcp(endpoint):
        _set_for_tcp(socket, endpoint)
        if keys is not None:
            socket.set(zmq.CURVE_SERVERKEY, keys.broker)
            socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
            socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)
    socket.connect(_pinned(socket.context, endpoint).replace(f"tcp://{ANY_HOST}:", "tcp://127.0.0.1:"))


def _pinned(context: Context, endpoint: str) -> str:
    """The ipc endpoint, through a descriptor of its directory: libzmq connects again without asking us.

    Meanwhile the directory may have been removed, and another user may have made one with the same name.
    """
    path = socket_path(endpoint)
    if path is None:
        return endpoint
    directory = own_directory.opened(endpoint, path.parent)
    descriptors = _directories.setdefault(context, [])
    same = next((each for each in descriptors if os.path.sameopenfile(each, directory)), None)
    if same is None:
        descriptors.append(directory)
    else:
        os.close(directory)
    return f"ipc:///proc/self/fd/{directory if same is None else same}/{path.name}"


def destroy(context: Context, linger_ms: int) -> None:
    """Closes all sockets of a context, and the descriptors of their directories.

    Args:
        context: of this module's sockets.
        linger_ms: how long messages that were sent may take to go out.
    """
    context.destroy(linger=linger_ms)
    for descriptor in _directories.pop(context, []):
        os.close(descriptor)


def say(socket: Socket, frames: Sequence[Payload]) -> None:
    """Sends through a connected socket without waiting; drops the message if it cannot be sent.

    That happens if the broker has refused our key. Then libzmq gives the connection up, and a send that waits would
    wait for ever. The session gets no answer, so its owner replaces it.
    """
    with suppress(zmq.Again):
        send(socket, frames)


def send(socket: Socket, frames: Sequence[Payload]) -> None:
    """Sends one multipart without waiting.

    `send_multipart` takes three times as long, because it computes the flags for each frame.

    Raises:
        zmq.ZMQError: the peer reads nothing (EAGAIN) or is gone (EHOSTUNREACH). Then no frame was sent.
    """
    *heads, last = frames
    for frame in heads:
        socket.send(frame, _MORE)
    socket.send(last, _NOBLOCK, copy=len(last) < ZERO_COPY_BYTES)


@dataclass(frozen=True, slots=True)
class Guard:
    """Makes a bound socket ask the ZAP handler of its context about each key. Without a handler nobody gets in."""

    domain: str
    keys: KeyPair


def router(
    context: Context, endpoint: str, *, send_limit: int, payload_limit: int, guard: Guard | None = None
) -> Socket:
    """A bound ROUTER that reports what it cannot deliver.

    Args:
        context: the ZeroMQ context of this program.
        endpoint: where to bind.
        send_limit: how many messages wait for a peer that does not read; the next send to it fails with EAGAIN.
        payload_limit: in bytes. libzmq disconnects a peer that sends a larger frame.
        guard: decides who may connect over tcp; None: everybody may.

    Raises:
        SettingsError, OSError: as `connect`.
        zmq.ZMQError: the endpoint cannot be bound.
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
    try:
        socket.bind(_pinned(socket.context, endpoint))
    except BaseException:
        socket.close()
        raise
    return socket


def _set_for_tcp(socket: Socket, endpoint: str) -> None:
    """Makes the kernel close the connection to a host that vanished. Without this it would be kept for ever."""
    socket.set(zmq.IPV6, "[" in endpoint)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES)
    socket.set(zmq.TCP_MAXRT, UNACKNOWLEDGED_MS)  # while data is not acknowledged, the kernel sends no keepalive probes


def _make_routing_ids_unpredictable() -> None:
    """Seeds the C library's rand(). libzmq takes the routing ids of a ROUTER's peers from it, and does not seed it.

    If a peer can guess the next routing id and takes it as its own identity, libzmq aborts our process.
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


def receive(socket: Socket) -> list[bytes] | None:
    """Receives one multipart without waiting; None if there is none. Frames after the first MAX_FRAMES are dropped."""
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
    """As `receive`, for a ROUTER: the peer, its frames, and the first frame as libzmq's object (see `sender_pid`).

    The frames are copies, because a frame of libzmq can keep some kilobytes more in memory while its task waits. If
    MAX_FRAMES come back, there may be more: call `skip` before the next message.
    """
    try:
        peer = socket.recv(_NOBLOCK)
    except zmq.Again:
        return None
    source = frame = socket.recv(_NOBLOCK, copy=False)  # cannot fail: a multipart arrives whole
    frames: list[Payload] = [frame.bytes]
    while frame.more and len(frames) < MAX_FRAMES:
        frame = socket.recv(_NOBLOCK, copy=False)
        frames.append(frame.bytes)
    return peer, frames, source


def skip(socket: Socket, limit: int) -> bool:
    """Drops up to `limit` of the frames that are left of a multipart; returns whether it has ended.

    libzmq gives out the next message of this socket only after the last frame of this one.
    """
    if not socket.get(zmq.RCVMORE):
        return True
    return any(not socket.recv(_NOBLOCK, copy=False).more for _ in range(limit))


def sender_pid(source: zmq.Frame | None) -> int | None:
    """The pid of the process that sent this frame, from the kernel; None if it came over tcp, or the peer is gone."""
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
    return int(pid) or None  # 0 for a process of another pid namespace


def sender_key(source: zmq.Frame | None) -> str | None:
    """The public key of the peer that sent this frame; None if it needed no key."""
    if source is None:
        return None
    try:
        return str(source.get("User-Id"))
    except zmq.ZMQError:
        return None


@dataclass(frozen=True, slots=True)
class Connection:
    """A tcp connection of a bound socket: our descriptor, and the address of the peer."""

    descriptor: int
    address: object

    @property
    def is_open(self) -> bool:
        """Whether the descriptor still belongs to this connection: libzmq may have closed it, and reused its number."""
        try:
            with KernelSocket(fileno=os.dup(self.descriptor)) as ours:
                return bool(ours.getpeername() == self.address)
        except OSError:
            return False

    def cut(self) -> None:
        """Ends the connection. libzmq has no option that closes the connection of one peer."""
        with suppress(OSError), KernelSocket(fileno=os.dup(self.descriptor)) as ours:
            if ours.getpeername() == self.address:
                ours.shutdown(SHUT_RDWR)


def sender_connection(source: zmq.Frame | None) -> Connection | None:
    """The connection that this frame came through; None if it is closed."""
    if source is None:
        return None
    try:
        descriptor = source.get(zmq.SRCFD)
        with KernelSocket(fileno=os.dup(descriptor)) as ours:
            return Connection(descriptor, ours.getpeername())
    except (OSError, zmq.ZMQError):
        return None
