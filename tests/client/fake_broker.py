"""A broker that the test plays: a real ROUTER in a thread, which welcomes and answers as the test wants."""

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import zmq

from racepool.protocol.frames import FROM_CLIENT, decode, encode
from racepool.protocol.messages import (
    Answer,
    Epoch,
    FromClient,
    Hello,
    Id,
    Name,
    Outcome,
    Payload,
    Ping,
    Pong,
    Submit,
    ToClient,
    Welcome,
    Who,
)
from racepool.protocol.sockets import Context, receive_from, router
from racepool.races.payloads import pack_result, unpack_request

POLL_MS = 5
M = TypeVar("M")
OnSubmit: TypeAlias = Callable[[Submit], list[ToClient]]
PAYLOAD_LIMIT = 1 << 20
WORKER = Name("worker-1")


def answer(task_id: Id, outcome: Outcome, payload: Payload) -> Answer:
    """The answer to a task that waited for 1.5 ms, and ran for 2.25 ms in its one attempt."""
    return Answer(task_id, outcome, 1, 1_500, 2_250, WORKER, payload)


def echo(submit: Submit) -> list[ToClient]:
    """Answers with the race's id."""
    return [answer(submit.task_id, Outcome.OK, pack_result(race_of(submit).get("id")))]


def race_of(submit: Submit) -> dict[str, Any]:
    """The race in this message."""
    race: Any = unpack_request(submit.payload).race
    parsed: dict[str, Any] = json.loads(race) if isinstance(race, bytes) else race
    return parsed


def nothing(_submit: Submit) -> list[ToClient]:
    """Never answers the task."""
    return []


class FakeBroker:
    """Welcomes every HELLO and answers pings; `on_submit` makes the answers to a task.

    `noise`, if it is set, makes frames that are sent before each reply.
    """

    def __init__(self, endpoint: str, on_submit: OnSubmit = echo) -> None:
        self.endpoint = endpoint
        self.epoch = Epoch(os.urandom(8))
        self.on_submit = on_submit
        self.is_mute = False
        self.can_share = False
        self.noise: Callable[[], list[Payload]] | None = None
        self.heard: list[FromClient] = []
        self._peers: list[Payload] = []
        self._submitter: dict[Id, bytes] = {}
        self._outbox: deque[list[Payload]] = deque()
        self._is_over = False
        self._context: Context = zmq.Context()
        self._socket = router(self._context, endpoint, send_limit=1000, payload_limit=PAYLOAD_LIMIT)
        self._thread = threading.Thread(target=self._run, name="fake-broker", daemon=True)
        self._thread.start()

    def of(self, kind: type[M]) -> list[M]:
        """All messages of this kind that came."""
        return [message for message in list(self.heard) if isinstance(message, kind)]

    def say(self, *messages: ToClient) -> None:
        """Sends to the peer that opened the last session."""
        for message in messages:
            self.say_frames(encode(message))

    def say_frames(self, frames: Sequence[Payload]) -> None:
        """Like `say`, with any frames."""
        self._outbox.append([self._peers[-1], *frames])

    def say_to(self, task_id: Id, message: ToClient) -> None:
        """Sends to the peer that submitted this task last."""
        self._outbox.append([self._submitter[task_id], *encode(message)])

    def close(self) -> None:
        """Ends without a message, as if killed."""
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        while not self._is_over:
            poller.poll(POLL_MS)
            while (received := receive_from(self._socket)) is not None:
                peer, frames, _ = received
                self._hear(peer, decode(frames, FROM_CLIENT))
            while self._outbox:
                self._send(self._outbox.popleft())
        self._context.destroy(linger=0)

    def _hear(self, peer: bytes, message: FromClient) -> None:
        self.heard.append(message)
        if self.is_mute:
            return
        replies: list[ToClient] = []
        if isinstance(message, Hello):
            self._peers.append(peer)
            replies = [Welcome(self.epoch, PAYLOAD_LIMIT, 2000, self.can_share)]
        elif peer not in self._peers:
            replies = [Who()]
        elif isinstance(message, Ping):
            replies = [Pong(self.epoch)]
        elif isinstance(message, Submit):
            self._submitter[message.task_id] = peer
            replies = self.on_submit(message)
        for reply in replies:
            if self.noise:
                self._send([peer, *self.noise()])
            self._send([peer, *encode(reply)])

    def _send(self, frames: list[Payload]) -> None:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
