"""A worker process that says READY when it is told to, and waits to be killed."""

import os
import sys
import time

import zmq

from racepool.protocol.frames import encode
from racepool.protocol.messages import Id, Name, Ready
from racepool.protocol.sockets import dealer

CONNECTED_S = 0.3
SENT_S = 0.1


def main(endpoint: str, name: str) -> None:
    """Prints a line when it has a connection, and one when it has spoken."""
    socket = dealer(zmq.Context(), endpoint)
    time.sleep(CONNECTED_S)
    print("connected", flush=True)  # noqa: T201  # the test reads it
    sys.stdin.readline()
    socket.send_multipart(encode(Ready(Id(os.urandom(16)), 1, Name(name), os.getpid(), Name("raw"), 0)))
    time.sleep(SENT_S)
    print("spoken", flush=True)  # noqa: T201
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
