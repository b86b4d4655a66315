"""The proxy's process: `python -m benchmarks.contenders.proxy_device FRONT BACK`."""

import sys

import zmq

from racepool.protocol.processes import die_with_parent


def main(front: str, back: str) -> None:
    """Passes messages on until the parent process ends."""
    die_with_parent()
    context = zmq.Context()
    clients, workers = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for socket in (clients, workers):
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.SNDHWM, 0 if socket is clients else 1)  # a task that waits at a busy worker could run at another
    workers.bind(back)
    clients.bind(front)
    zmq.proxy(clients, workers)


if __name__ == "__main__":
    main(*sys.argv[1:])
