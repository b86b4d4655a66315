"""Connections to the broker that speak no ZMTP, or break its rules. Each function makes one attempt."""

import time
from collections.abc import Callable
from random import Random

from tests.fuzzing.zmtp import COMMAND, LONG, MORE, RawPeer, command, frame, greeting, plausible_routing_id, ready

DRIP_S = 0.002


def random_bytes(peer: RawPeer, dice: Random) -> None:
    peer.send(dice.randbytes(dice.randrange(1, 5_000)))


def http(peer: RawPeer, dice: Random) -> None:
    verb = dice.choice(["GET", "POST", "OPTIONS"])
    peer.send(f"{verb} /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n".encode())


def half_greeting(peer: RawPeer, dice: Random) -> None:
    peer.send(greeting()[: dice.randrange(64)])


def wrong_mechanism(peer: RawPeer, dice: Random) -> None:
    mechanism = dice.choice([b"PLAIN", b"CURVE", b"GSSAPI", b"", b"null", b"NULL" * 5, dice.randbytes(20)])
    peer.send(greeting(mechanism), ready())


def wrong_version(peer: RawPeer, dice: Random) -> None:
    peer.send(greeting(version=dice.randbytes(2)), dice.choice([ready(), frame(b"x"), b"\x01\x00"]))


def wrong_type(peer: RawPeer, dice: Random) -> None:
    kind = dice.choice([b"PUB", b"SUB", b"ROUTER", b"REQ", b"REP", b"PAIR", b"PUSH", b"", b"X" * 300])
    peer.shake_hands(socket_type=kind)
    peer.send(frame(b"x"))


def long_identity(peer: RawPeer, dice: Random) -> None:
    peer.shake_hands(dice.randbytes(dice.choice([255, 256, 300, 70_000])))
    peer.send(frame(b"x"))


def bad_ready(peer: RawPeer, dice: Random) -> None:
    properties = dice.choice([b"\x0bSocket-Type\xff\xff\xff\xff", b"\xff", b"\0" * 9, dice.randbytes(60)])
    peer.send(greeting(), command(b"READY", properties), frame(b"x"))


def bad_command(peer: RawPeer, dice: Random) -> None:
    name = dice.choice(
        [b"PING", b"PONG", b"ERROR", b"SUBSCRIBE", b"CANCEL", b"READY", b"HELLO", b"", dice.randbytes(9)]
    )
    peer.shake_hands()
    peer.send(command(name, dice.randbytes(dice.randrange(300))), frame(b"x"))


def bad_flags(peer: RawPeer, dice: Random) -> None:
    peer.shake_hands()
    peer.send(frame(dice.randbytes(9), dice.randrange(256)), frame(b"x"))


def half_frame(peer: RawPeer, dice: Random) -> None:
    peer.shake_hands()
    peer.send(frame(bytes(dice.randrange(1, 200)), length=dice.choice([201, 5_000, 2**20])))


def huge_length(peer: RawPeer, dice: Random) -> None:
    length = dice.choice([2**24 + 1_025, 2**31, 2**32, 3 * 10**9, 2**63 - 1, 2**63, 2**64 - 1])
    peer.shake_hands()
    peer.send(frame(b"x" * 100, LONG | dice.choice([0, MORE, COMMAND]), length=length))


def claimed_identity(peer: RawPeer, dice: Random) -> None:
    """A routing id of the form that the ROUTER chooses, or the id of another peer."""
    mine = dice.choice([plausible_routing_id(), b"\0" * 5, b"\0\0\0\0\1", b"twice", b""])
    peer.shake_hands(mine)
    peer.send(frame(b"x"))


def slow_loris(peer: RawPeer, dice: Random) -> None:
    """Sends byte by byte, a part of the handshake or more."""
    for byte in (greeting() + ready() + frame(bytes(100)))[: dice.randrange(300)]:
        if not peer.send(bytes([byte])):
            return
        time.sleep(DRIP_S)


def unfinished_multipart(peer: RawPeer, dice: Random) -> None:
    """Frames that all announce another one, up to a bound. The end of the connection discards them."""
    peer.shake_hands()
    for _ in range(dice.randrange(1, 60)):
        if not peer.send(frame(bytes(65_536), MORE)):
            return


Attempt = Callable[[RawPeer, Random], None]
ATTEMPTS: dict[str, Attempt] = {
    attempt.__name__: attempt
    for attempt in (
        random_bytes,
        http,
        half_greeting,
        wrong_mechanism,
        wrong_version,
        wrong_type,
        long_identity,
        bad_ready,
        bad_command,
        bad_flags,
        half_frame,
        huge_length,
        claimed_identity,
        slow_loris,
        unfinished_multipart,
    )
}
