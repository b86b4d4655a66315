"""Celery with redis: the server and the workers are started here, and the caller's side has one thread.

Celery blocks whoever publishes a task or waits for one, and its results come to the thread that published. So a thread
does both: it takes races from the loop, publishes them, and collects what has come.
"""

import asyncio
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.loads import Race
from benchmarks.measures import Submit
from protocol.transformed_race import TransformedRace

PATIENCE_S = 10.0
COLLECT_S = 0.0005  # a wait for results, after which the thread looks for new races
STOP_S = 5.0

Order = tuple[Race, "asyncio.Future[TransformedRace]"]


class Collector:
    """The thread between the caller's loop and Celery."""

    def __init__(self, transform: Any) -> None:  # noqa: ANN401  # a celery Task
        self._transform = transform
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, race: Race) -> "asyncio.Future[TransformedRace]":
        """Hands it to the thread."""
        future: asyncio.Future[TransformedRace] = self._loop.create_future()
        self._orders.put((race, future))
        return future

    def stop(self) -> None:
        """What is under way is not waited for."""
        self._orders.put(None)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        consumer = self._transform.app.backend.result_consumer
        while True:
            try:
                order = self._orders.get(block=not self._waiting)
            except queue.Empty:
                consumer.drain_events(timeout=COLLECT_S)
                continue
            if order is None:
                return
            self._publish(*order)

    def _publish(self, race: Race, future: "asyncio.Future[TransformedRace]") -> None:
        self._waiting += 1
        self._transform.apply_async((race,)).then(self._resolving(future), on_error=self._resolving(future))

    def _resolving(self, future: "asyncio.Future[TransformedRace]") -> Callable[[Any], None]:
        def resolve(result: Any) -> None:  # noqa: ANN401  # a celery AsyncResult
            self._waiting -= 1
            if result.successful():
                self._loop.call_soon_threadsafe(future.set_result, result.result)
            else:
                self._loop.call_soon_threadsafe(future.set_exception, result.result)

        return resolve


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Redis keeps nothing on disk; all that was started ends with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-celery-")))
        socket = _start_redis(folder, stack)
        os.environ |= {"BENCHMARKS_REDIS": str(socket), "C_FORCE_ROOT": "1"}  # root may take pickles: they are ours
        _start_workers(workers, stack)
        from benchmarks.contenders.celery_app import transform  # noqa: PLC0415  # redis's address is known now

        collector = Collector(transform)
        stack.callback(collector.stop)
        yield collector.submit


def _start_redis(folder: Path, stack: ExitStack) -> Path:
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    _start(command, stack)
    deadline = time.monotonic() + PATIENCE_S
    while not socket.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"redis-server has no socket after {PATIENCE_S:g} s")
        time.sleep(0.01)
    return socket


def _start_workers(workers: int, stack: ExitStack) -> None:
    application = ["-A", "benchmarks.contenders.celery_app"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    command = [sys.executable, "-m", "celery", *application, "worker", "--pool", "prefork"]
    _start([*command, "--concurrency", str(workers), *quiet], stack)


def _start(command: list[str], stack: ExitStack) -> None:
    process = subprocess.Popen(command)  # noqa: S603  # ours
    stack.callback(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
