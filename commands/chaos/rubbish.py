"""A program that sends unwanted messages to all four sockets for some seconds: `... rubbish SEED SECONDS`.

It sends bytes that are no ZMTP, broken messages, and valid messages about sessions, tasks and leases that do not exist.
It never introduces a worker, by READY or by a busy heartbeat: any peer that may open the sockets may be a worker, and a
worker that never answers is another kind of fault.
"""

import socket
import sys
import threading
import time
from contextlib import suppress
from random import Random
from typing import Final

import zmq

from racepool.commands.chaos.corpus import MUTATIONS, real
from racepool.protocol.endpoints import socket_path
from racepool.protocol.frames import FROM_HEARTBEAT, BadFrameError, decode, encode
from racepool.protocol.messages import (
    Bye,
    Cancel,
    Expire,
    Heartbeat,
    Payload,
    Ping,
    Result,
    Submit,
)
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context, dealer, destroy

GAP_S: Final = 0.004
RENEW_CHANCE: Final = 0.02
VALID_CHANCE: Final = 0.25
KINDS: Final[tuple[type, ...]] = (Result, Cancel, Expire, Submit, Ping, Bye, Heartbeat)


class Rubbish:
    """A source of unwanted messages: the same seed gives the same ones."""

    def __init__(self, seed: str) -> None:
        self._dice = Random(seed)  # noqa: S311  # no secret

    def frames(self) -> list[Payload]:
        """One message for a ZeroMQ socket, valid or broken."""
        while True:
            frames = encode(real(self._dice.choice(KINDS), self._dice))  # ids are random, so nobody has them
            if not self.is_due(VALID_CHANCE):
                frames = self._dice.choice(MUTATIONS)(frames, self._dice)
            if not _introduces_worker(frames):
                return frames

    def raw(self) -> bytes:
        """Bytes for a bare connection."""
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL"
        return self._dice.choice(
            (b"GET / HTTP/1.1\r\n\r\n", greeting[: self._dice.randint(1, 16)], self._dice.randbytes(64))
        )

    def is_due(self, chance: float) -> bool:
        """True with this probability."""
        return self._dice.random() < chance


def _introduces_worker(frames: list[Payload]) -> bool:
    """A broker takes an unknown worker's busy heartbeat for a worker that it did not see after its restart."""
    try:
        return decode(frames, FROM_HEARTBEAT).busy
    except BadFrameError:
        return False


def say(rubbish: Rubbish, endpoint: str, path: str, context: Context, until: float) -> None:
    """Sends to one socket until the instant `until`, through connections that it opens and closes."""
    peer = dealer(context, endpoint)
    while time.monotonic() < until:
        peer.send_multipart(rubbish.frames(), zmq.NOBLOCK)
        if rubbish.is_due(RENEW_CHANCE):
            peer.close(linger=0)
            peer = dealer(context, endpoint)
            with suppress(OSError), socket.socket(socket.AF_UNIX) as bare:
                bare.connect(path)
                bare.sendall(rubbish.raw())
        while peer.poll(0):
            peer.recv_multipart()
        time.sleep(GAP_S)
    peer.close(linger=0)


def main() -> None:
    """Sends to all four sockets at once."""
    seed, seconds = sys.argv[1], float(sys.argv[2])
    context: Context = zmq.Context()
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=say,
            args=(Rubbish(f"{seed}/{endpoint}"), endpoint, str(socket_path(endpoint) or endpoint), context, until),
        )
        for endpoint in Settings.load().endpoints()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    destroy(context, 0)


if __name__ == "__main__":
    main()
