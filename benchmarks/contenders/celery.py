"""Celery with redis: the server and the workers are started here.

To publish a task and to wait for its result both block, so they happen in threads, not on the caller's loop.
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
from uuid import uuid4

from benchmarks.loads import Race
from benchmarks.measures import Submit
from racepool.races.transformed_race import TransformedRace

PATIENCE_S = 10.0
DRAIN_S = 0.5  # also limits the reading of one result; less breaks the connection if the machine is busy
STOP_S = 5.0

Order = tuple[Race, "asyncio.Future[TransformedRace]"]


class Collector:
    """Two threads between the caller's loop and Celery: one publishes, the other waits for results."""

    def __init__(self, transform: Any) -> None:  # noqa: ANN401  # a celery Task
        self._transform = transform
        self._consumer = transform.app.backend.result_consumer  # made here, since the two threads could make two
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._under_way: dict[str, tuple[Any, ...]] = {}  # keeps the results: Celery drops one that nobody holds
        self._is_over = False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._publish, self._drain)]
        for thread in self._threads:
            thread.start()

    def submit(self, race: Race) -> "asyncio.Future[TransformedRace]":
        """Gives the task to the thread that publishes."""
        future: asyncio.Future[TransformedRace] = self._loop.create_future()
        self._orders.put((race, future))
        return future

    def stop(self) -> None:
        """Stops the threads. Does not wait for tasks that are under way."""
        self._is_over = True
        self._orders.put(None)
        for thread in self._threads:
            thread.join(STOP_S)

    def _publish(self) -> None:
        while order := self._orders.get():
            race, future = order
            task_id = str(uuid4())
            result = self._transform.AsyncResult(task_id)
            resolve = self._resolving(task_id, future)
            self._under_way[task_id] = (result,)
            result.then(resolve, on_error=resolve)  # before it is published, since the result may come at once
            try:
                self._under_way[task_id] = (result, self._transform.apply_async((race,), task_id=task_id))
            except Exception as error:  # noqa: BLE001  # for the caller
                self._under_way.pop(task_id)
                self._loop.call_soon_threadsafe(future.set_exception, error)

    def _drain(self) -> None:
        while not self._is_over:
            self._consumer.drain_events(timeout=DRAIN_S)

    def _resolving(self, task_id: str, future: "asyncio.Future[TransformedRace]") -> Callable[[Any], None]:
        def resolve(result: Any) -> None:  # noqa: ANN401  # a celery AsyncResult
            self._under_way.pop(task_id)
            resolved = future.set_result if result.successful() else future.set_exception
            self._loop.call_soon_threadsafe(resolved, result.result)

        return resolve


@asynccontextmanager
async def opened(workers: int) -> AsyncIterator[Submit]:
    """Starts redis, which keeps nothing on disk, and the workers. All of them end with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-celery-")))
        socket = _start_redis(folder, stack)
        os.environ |= {"BENCHMARKS_REDIS": str(socket), "C_FORCE_ROOT": "1"}  # lets root read pickles, which are ours
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
    command = [sys.executable, "-m", "celery", "--quiet", *application, "worker", "--pool", "prefork"]
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
