"""A client process that sends as fast as it can, for ever."""

import os
import sys

import zmq

from racepool.protocol.frames import encode
from racepool.protocol.messages import Hello, Id, Ping
from racepool.protocol.sockets import dealer


def main(endpoint: str) -> None:
    """Floods until killed."""
    socket = dealer(zmq.Context(), endpoint)
    socket.set(zmq.SNDHWM, 1_000)  # what libzmq takes at once, not all of our memory
    socket.send_multipart(encode(Hello(Id(os.urandom(16)), 1, os.getpid(), 0)))
    frames = encode(Ping(0))
    print("flooding", flush=True)  # noqa: T201  # the test waits for it
    while True:
        socket.send_multipart(frames)


if __name__ == "__main__":
    main(sys.argv[1])
