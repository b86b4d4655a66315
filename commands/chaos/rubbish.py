"""A program that says what nobody asked for to all four sockets, for some seconds: `... rubbish SEED SECONDS`.

Bytes that are no ZMTP, frames that are no message, messages of another version, and valid ones about sessions, tasks
and leases that are not. It never says READY: whoever may open the sockets may be a worker, and one that answers
nothing is what other faults are about.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final

import zmq

from racepool.protocol.frames import encode
from racepool.protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    Cancel,
    Epoch,
    Expire,
    Heartbeat,
    Id,
    Name,
    Outcome,
    Ping,
    Result,
    Submit,
)
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context, dealer

GAP_S: Final = 0.004
MAX_FRAMES: Final = 6
MAX_BYTES: Final = 600
RENEW_CHANCE: Final = 0.02

Frames = Sequence[bytes]


class Rubbish:
    """A source of it: the same seed says the same."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)  # noqa: S311  # no secret
        self._ways: list[Callable[[], Frames]] = [self.noise, self.other_version, self.broken, self.foreign]

    def frames(self) -> Frames:
        """One message for a ZeroMQ socket."""
        return self._random.choice(self._ways)()

    def noise(self) -> Frames:
        """Random frames, in any number."""
        return [self._bytes(self._random.randint(0, MAX_BYTES)) for _ in range(self._random.randint(1, MAX_FRAMES))]

    def other_version(self) -> Frames:
        """What a peer of another version may say."""
        header, *rest = self.foreign()
        return [header[:1] + bytes([self._random.randint(PROTOCOL_VERSION + 1, 127)]) + header[2:], *rest]

    def broken(self) -> Frames:
        """A message with one byte changed, cut short, or with a frame too many."""
        header, *rest = self.foreign()
        place = self._random.randrange(1, len(header))
        match self._random.randrange(3):
            case 0:
                return [header[:place] + self._bytes(1) + header[place + 1 :], *rest]
            case 1:
                return [header[:place], *rest]
            case _:
                return [header, *rest, b"", b""]

    def foreign(self) -> Frames:
        """A valid message about what does not exist."""
        task, epoch, lease = Id(self._bytes(16)), Epoch(self._bytes(8)), self._random.randrange(100)
        beat = Heartbeat(task, Name("nobody"), 1, Name("0"), 0, busy=False, draining=False, rss_bytes=0)
        message = self._random.choice(
            (
                Result(epoch, lease, task, Outcome.OK, recycle=False, payload=b"stale"), Cancel(task, kill=True),
                Expire(task, 1), Submit(task, 1, 0, again=True, is_shared=False, payload=b"no session"), Ping(0),
                Bye(), beat,
            )
        )  # fmt: skip
        return [bytes(frame) for frame in encode(message)]

    def raw(self) -> bytes:
        """What comes over a bare connection."""
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL"
        return self._random.choice(
            (b"GET / HTTP/1.1\r\n\r\n", greeting[: self._random.randint(1, 16)], self._bytes(64))
        )

    def is_due(self, chance: float) -> bool:
        """With so much probability."""
        return self._random.random() < chance

    def _bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


def say(rubbish: Rubbish, endpoint: str, path: str, context: Context, until: float) -> None:
    """To one socket, through connections that come and go, until then."""
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
    """To all four sockets at once."""
    seed, seconds = sys.argv[1], float(sys.argv[2])
    context: Context = zmq.Context()
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=say, args=(Rubbish(f"{seed}/{endpoint}"), endpoint, endpoint.removeprefix("ipc://"), context, until)
        )
        for endpoint in Settings.load().endpoints()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context.term()


if __name__ == "__main__":
    main()
