"""A worker process of a few lines, to be killed: it says READY, prints what it is given, and answers nothing."""

import os
import sys

import zmq

from protocol.messages import TO_WORKER, Id, Name, Ready, Task, decode, encode
from protocol.sockets import dealer


def main(endpoint: str, name: str) -> None:
    """Works until killed."""
    socket = dealer(zmq.Context(), endpoint)
    socket.send_multipart(encode(Ready(Id(os.urandom(16)), Name(name), os.getpid(), Name("raw"), 0)))
    while True:
        message = decode(socket.recv_multipart(), TO_WORKER)
        what = f"task {message.attempt}" if isinstance(message, Task) else type(message).__name__
        print(what, flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
