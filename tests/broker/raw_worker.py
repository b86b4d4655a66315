"""A small worker process for a test to kill: it says READY, prints what it is given, and answers nothing.

It forks a child that keeps its connection open for a while. So its sockets outlive it, and messages to it seem to
arrive.
"""

import os
import sys
import time

import zmq

from racepool.protocol.frames import TO_WORKER, decode, encode
from racepool.protocol.messages import Assign, Id, Name, Ready
from racepool.protocol.sockets import dealer

HEIR_S = 3


def main(endpoint: str, name: str) -> None:
    """Works until killed."""
    socket = dealer(zmq.Context(), endpoint)
    socket.send_multipart(encode(Ready(Id(os.urandom(16)), 1, Name(name), os.getpid(), Name("raw"), 0)))
    welcome = decode(socket.recv_multipart(), TO_WORKER)
    if os.fork() == 0:
        os.close(sys.stdout.fileno())
        time.sleep(HEIR_S)
        os._exit(0)
    print(type(welcome).__name__, flush=True)  # noqa: T201  # the test reads it
    while True:
        message = decode(socket.recv_multipart(), TO_WORKER)
        what = f"task {message.attempt}" if isinstance(message, Assign) else type(message).__name__
        print(what, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
