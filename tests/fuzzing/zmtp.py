"""A peer that speaks ZMTP by hand, so that it can break the rules: a plain socket, greeting, commands, frames."""

import os
import struct
from contextlib import suppress
from socket import AF_INET, AF_UNIX, SHUT_WR, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET
from socket import socket as plain_socket
from types import TracebackType
from typing import Self

PATIENCE_S = 1
MORE, LONG, COMMAND = 1, 2, 4


def greeting(mechanism: bytes = b"NULL", version: bytes = b"\x03\x00") -> bytes:
    """The first 64 bytes of a connection."""
    return b"\xff" + bytes(8) + b"\x7f" + version + mechanism.ljust(20, b"\0") + bytes(32)


def frame(body: bytes, flags: int = 0, *, length: int | None = None) -> bytes:
    """A frame; its header can claim another length."""
    length = len(body) if length is None else length
    if length < 256:
        return bytes([flags, length]) + body
    return bytes([flags | LONG]) + length.to_bytes(8, "big") + body


def command(name: bytes, body: bytes = b"") -> bytes:
    """A ZMTP command, such as READY."""
    return frame(bytes([len(name)]) + name + body, COMMAND)


def ready(identity: bytes = b"", socket_type: bytes = b"DEALER") -> bytes:
    """The command that ends the handshake, for a peer of this name and type."""
    properties = {b"Socket-Type": socket_type, b"Identity": identity}
    packed = (bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in properties.items())
    return command(b"READY", b"".join(packed))


def multipart(frames: list[bytes]) -> bytes:
    """The frames of one message."""
    *first, last = frames
    return b"".join([*(frame(each, MORE) for each in first), frame(last)])


class RawPeer:
    """A connection to an endpoint. It is no error here if the other side closes it or does not read."""

    def __init__(self, endpoint: str, patience_s: int = PATIENCE_S) -> None:
        scheme, _, address = endpoint.partition("://")
        self._socket = plain_socket(AF_UNIX if scheme == "ipc" else AF_INET, SOCK_STREAM)
        for direction in (SO_SNDTIMEO, SO_RCVTIMEO):  # not settimeout: connect would fail where the backlog is full
            self._socket.setsockopt(SOL_SOCKET, direction, struct.pack("ll", patience_s, 0))
        host, _, port = address.rpartition(":")
        with suppress(OSError):
            self._socket.connect(address if scheme == "ipc" else (host, int(port)))

    def send(self, *parts: bytes) -> bool:
        """Sends; returns whether the other side took everything."""
        try:
            self._socket.sendall(b"".join(parts))
        except OSError:
            return False
        return True

    def offer_hand(self, identity: bytes = b"", socket_type: bytes = b"DEALER") -> None:
        """The first half of a handshake."""
        self.send(greeting(), ready(identity, socket_type))

    def await_hand(self) -> bool:
        """Waits for the second half: data that is sent before would break the handshake. False if it never comes."""
        heard = b""
        while b"READY" not in heard:
            part = self.heard()
            if not part:
                return False
            heard += part
        return True

    def shake_hands(self, identity: bytes = b"", socket_type: bytes = b"DEALER") -> bool:
        """The whole handshake, as a real peer does it."""
        self.offer_hand(identity, socket_type)
        return self.await_hand()

    def half_close(self) -> None:
        """Closes the sending side only."""
        with suppress(OSError):
            self._socket.shutdown(SHUT_WR)

    def heard(self) -> bytes:
        """Reads until the patience is over; empty after the end of the connection."""
        try:
            return self._socket.recv(65_536)
        except OSError:
            return b""

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def plausible_routing_id() -> bytes:
    """A routing id of the form that a ROUTER chooses itself: a peer that guesses the next one aborts the ROUTER."""
    return b"\0" + os.urandom(4)
