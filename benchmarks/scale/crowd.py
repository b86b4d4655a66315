"""Fake clients and workers in one thread. They keep to the protocol, and compute nothing."""

import os
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Final, TypeVar

import zmq

from racepool.protocol.frames import TO_CLIENT, TO_WORKER, Inlet, decode, encode
from racepool.protocol.messages import (
    Answer,
    AskStats,
    Assign,
    Hello,
    Id,
    Name,
    Outcome,
    Ready,
    Recall,
    Result,
    Stats,
    Submit,
    Welcome,
)
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context, Socket, dealer, receive, say

M = TypeVar("M")
PATIENCE_S: Final = 60.0
RUN_TIMEOUT_MS: Final = 3_600_000
ASK_EVERY: Final = 200  # submissions; then wait for the broker, so that nothing piles up before it


class CrowdError(Exception):
    """The broker said something unexpected, or nothing."""


class Crowd:
    """Clients that keep a number of tasks queued, and workers that answer each task at once."""

    def __init__(self, settings: Settings, clients: int, body: bytes) -> None:
        self._settings = settings
        self._body = body
        self._context: Context = zmq.Context()
        self._poller = zmq.Poller()
        self._workers: dict[Socket, None] = {}
        self._clients = [self._client() for _ in range(clients)]
        self._turn = cycle(self._clients)

    def close(self) -> None:
        """Ends all sessions."""
        self._context.destroy(linger=0)

    def submit(self, tasks: int) -> None:
        """Submits tasks, and returns when the broker has all of them."""
        for number in range(tasks):
            self._submit(next(self._turn))
            if number % ASK_EVERY == ASK_EVERY - 1:
                self._wait_for_broker()
        self._wait_for_broker()

    def start_workers(self, workers: int) -> None:
        """Adds workers. Each gets a task at once, if there is one."""
        for number in range(workers):
            socket = dealer(self._context, self._settings.backend)
            ready = Ready(Id(os.urandom(16)), 1, Name(f"fake-{number}"), os.getpid(), Name("fake"), 0)
            say(socket, encode(ready))
            self._workers[socket] = None
            self._expect(socket, TO_WORKER, Welcome, also=self._work)
            self._poller.register(socket, zmq.POLLIN)
        for client in self._clients:
            self._poller.register(client, zmq.POLLIN)

    def serve(self, answers: int) -> None:
        """Works until this many tasks are answered. For each answer, a new task is submitted."""
        deadline = time.monotonic() + PATIENCE_S
        while answers > 0:
            for socket, _ in self._poller.poll(100):
                while frames := receive(socket):
                    if socket in self._workers:
                        self._work(socket, decode(frames, TO_WORKER))
                    else:
                        self._take(socket, decode(frames, TO_CLIENT))
                        answers -= 1
            if time.monotonic() > deadline:
                raise CrowdError(f"{answers} tasks are unanswered after {PATIENCE_S:g} s")

    def _client(self) -> Socket:
        socket = dealer(self._context, self._settings.endpoint)
        say(socket, encode(Hello(Id(os.urandom(16)), 1, os.getpid(), 0)))
        self._expect(socket, TO_CLIENT, Welcome)
        return socket

    def _submit(self, socket: Socket) -> None:
        say(
            socket,
            encode(Submit(Id(os.urandom(16)), RUN_TIMEOUT_MS, 0, again=False, is_shared=False, payload=self._body)),
        )

    def _wait_for_broker(self) -> None:
        """Waits until the broker has read all. It reads a client's messages in order, so the last answer tells it."""
        for socket in islice(self._turn, len(self._clients)):
            say(socket, encode(AskStats()))
            self._expect(socket, TO_CLIENT, Stats)

    def _work(self, socket: Socket, message: object) -> None:
        if isinstance(message, Recall):
            return  # the task was done before the recall came
        if not isinstance(message, Assign):
            raise CrowdError(f"a worker was told {message}")
        result = Result(message.epoch, message.lease, message.task_id, Outcome.OK, recycle=False, payload=b"")
        say(socket, encode(result))

    def _take(self, socket: Socket, message: object) -> None:
        if not isinstance(message, Answer):
            raise CrowdError(f"a client was told {message}")
        self._submit(socket)

    def _expect(
        self, socket: Socket, inlet: Inlet[M], kind: type[M], also: Callable[[Socket, object], None] | None = None
    ) -> None:
        """Waits for a message of this kind. Messages of other kinds go to `also`."""
        while socket.poll(round(PATIENCE_S * 1000)):
            message = decode(receive(socket) or (), inlet)
            if isinstance(message, kind):
                return
            if also is None:
                raise CrowdError(f"{message} came instead of {kind.__name__}")
            also(socket, message)
        raise CrowdError(f"no {kind.__name__} within {PATIENCE_S:g} s")
