"""A worker behind the proxy: `python -m benchmarks.contenders.proxy_worker BACK`."""

import sys

import zmq

from racepool.protocol.parcel import Parcel
from racepool.protocol.processes import die_with_parent
from racepool.protocol.settings import Settings
from racepool.races.transform import transform_race
from racepool.worker.execution import Execution

NUMBER_BYTES = 8
PREFETCH = 2  # messages in its pipe, so that the next task is there when one is done


def main(back: str) -> None:
    """Works until the parent process ends."""
    die_with_parent()
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set(zmq.RCVHWM, PREFETCH)
    socket.connect(back)
    execution = Execution(transform_race)
    limit_bytes = Settings.model_fields["payload_limit"].default
    while True:
        peer, number, head, body = socket.recv_multipart()
        outcome, result = execution.run(Parcel(head, body), limit_bytes)
        socket.send_multipart([peer, number, outcome.encode(), result])


if __name__ == "__main__":
    main(*sys.argv[1:])
