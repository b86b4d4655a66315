"""zmq.proxy in a process, between workers and a client: it shows the cost of the hop alone.

A proxy cannot speak racepool's protocol, so both ends are minimal: our codec and our transform, and no more. There is
no thread: the socket's descriptor wakes the caller's loop.
"""

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import zmq

from benchmarks.contenders.proxy_worker import NUMBER_BYTES
from benchmarks.loads import POLLED_AT, Race
from benchmarks.measures import Submit
from racepool.protocol.messages import Outcome
from racepool.protocol.parcel import Parcel
from racepool.protocol.sockets import ZERO_COPY_BYTES, Context, dealer, receive
from racepool.races.payloads import pack_request, unpack_result
from racepool.races.transformed_race import TransformedRace

RESULTS_PER_TURN = 16
WINDOW_BYTES = 4 * 1024 * 1024


class ProxyClient:
    """Sends races and receives results. Each result has the number of its future.

    What is under way is bounded in bytes, as in racepool's client: without that, large races cost a third more.
    """

    def __init__(self, context: Context, endpoint: str) -> None:
        self._socket = dealer(context, endpoint)
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._futures: dict[bytes, tuple[asyncio.Future[TransformedRace], int]] = {}  # with the size of the request
        self._waiting: deque[tuple[bytes, Parcel]] = deque()
        self._under_way_bytes = 0
        self._loop.add_reader(self._socket.fileno(), self._pump)

    def submit(self, race: Race) -> "asyncio.Future[TransformedRace]":
        """Sends the race at once, or when there is room."""
        number = next(self._numbers).to_bytes(NUMBER_BYTES, "big")
        parcel = pack_request(race, POLLED_AT, None)
        future: asyncio.Future[TransformedRace] = self._loop.create_future()
        self._futures[number] = future, parcel.size_bytes
        self._waiting.append((number, parcel))
        self._send()
        self._loop.call_soon(self._pump)  # a send can clear the descriptor, which is edge-triggered
        return future

    def close(self) -> None:
        """Closes the socket, also if tasks are under way."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close(linger=0)

    def _send(self) -> None:
        while self._waiting and self._under_way_bytes < WINDOW_BYTES:
            number, parcel = self._waiting.popleft()
            self._under_way_bytes += parcel.size_bytes
            self._socket.send_multipart([number, parcel.head, parcel.body], copy=parcel.size_bytes < ZERO_COPY_BYTES)

    def _pump(self) -> None:
        """Receives a limited number of results at each turn of the loop."""
        for _ in range(RESULTS_PER_TURN):
            frames = None if self._socket.closed else receive(self._socket)
            if frames is None:
                return
            number, outcome, payload = frames
            future, size_bytes = self._futures.pop(number)
            self._under_way_bytes -= size_bytes
            self._send()
            if outcome == Outcome.OK.encode():
                future.set_result(unpack_result(payload))
            else:
                future.set_exception(RuntimeError(f"the worker's outcome is {outcome.decode()}: {payload!r}"))
        self._loop.call_soon(self._pump)


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Starts the device and the workers as processes, which end with us."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-proxy-")))
        front, back = (f"ipc://{folder}/{name}" for name in ("front", "back"))
        for program in (["proxy_device", front, back], *([["proxy_worker", back]] * workers)):
            _start(program, stack)
        context: Context = stack.enter_context(zmq.Context())
        client = ProxyClient(context, front)
        stack.callback(client.close)
        yield client.submit


def _start(program: list[str], stack: ExitStack) -> None:
    module, *arguments = program
    command = [sys.executable, "-m", f"benchmarks.contenders.{module}", *arguments]
    process = subprocess.Popen(command)  # noqa: S603  # ours
    stack.callback(process.wait)
    stack.callback(process.kill)
