"""A broker that the test plays: a thread with real ROUTERs for one worker's data and heartbeats. No broker code."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import zmq

from racepool.protocol.frames import FROM_HEARTBEAT, FROM_WORKER, decode, encode
from racepool.protocol.messages import (
    Assign,
    Epoch,
    FromWorker,
    Heartbeat,
    Id,
    Payload,
    Pong,
    Ready,
    ToHeartbeat,
    ToWorker,
    Welcome,
    Who,
)
from racepool.protocol.shared_memory import Segment
from racepool.protocol.sockets import Context, Socket, receive_from, router
from racepool.races.payloads import pack_request
from racepool.races.race import RaceInput

POLL_MS = 5
PAYLOAD_LIMIT = 16 << 20
M = TypeVar("M")


@dataclass
class Heard:
    """A message, who sent it and when."""

    message: FromWorker | Heartbeat
    peer: bytes
    at: float = field(default_factory=time.monotonic)


class FakeBroker:
    """Welcomes each READY unless it `is_mute`, and answers the heartbeats of the sessions that it welcomed.

    `noise`, if it is set, makes frames that are sent before each reply.
    """

    def __init__(self, directory: Path) -> None:
        self.epoch = Epoch(os.urandom(8))
        self.is_mute = False
        self.payload_limit = PAYLOAD_LIMIT  # as a WELCOME tells it
        self.noise: Callable[[], list[Payload]] | None = None
        self.heard: list[Heard] = []
        self._known: set[Id] = set()
        self._outbox: deque[list[Payload]] = deque()
        self._lease = 0
        self._is_over = False
        self._context: Context = zmq.Context()
        self._backend = self._bound(f"ipc://{directory}/backend.ipc")
        self._heartbeat = self._bound(f"ipc://{directory}/heartbeat.ipc")
        self._thread = threading.Thread(target=self._run, name="fake-broker", daemon=True)
        self._thread.start()

    def of(self, kind: type[M]) -> list[M]:
        """All messages of this kind that came."""
        return [one.message for one in list(self.heard) if isinstance(one.message, kind)]

    def say(self, message: ToWorker) -> None:
        """Sends to the session of the last READY."""
        peers = [one.peer for one in list(self.heard) if isinstance(one.message, Ready)]
        self._outbox.append([peers[-1], *encode(message)])

    def say_frames(self, frames: Sequence[Payload]) -> None:
        """Like `say`, with any frames."""
        peers = [one.peer for one in list(self.heard) if isinstance(one.message, Ready)]
        self._outbox.append([peers[-1], *frames])

    def assign(self, race: RaceInput, *, run_timeout_s: float = 30.0, shared_in: Segment | None = None) -> Assign:
        """Assigns this race to the worker, under a new lease. In `shared_in`, its payload is in shared memory."""
        self._lease += 1
        task_id = Id(os.urandom(16))
        parcel = pack_request(race, datetime.now(UTC), None)
        reference = None if shared_in is None else shared_in.reference(task_id, parcel)
        task = Assign(
            self.epoch,
            self._lease,
            task_id,
            1,
            round(run_timeout_s * 1000),
            is_shared=reference is not None,
            payload=parcel.payload() if reference is None else reference.packed(),
        )
        self.say(task)
        return task

    def forget(self) -> None:
        """Forgets all sessions, as a restart does."""
        self._known.clear()

    def close(self) -> None:
        """Ends without a message, as if killed."""
        self._is_over = True
        self._thread.join()

    def _bound(self, endpoint: str) -> Socket:
        return router(self._context, endpoint, send_limit=1000, payload_limit=PAYLOAD_LIMIT)

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._backend, self._heartbeat):
            poller.register(source, zmq.POLLIN)
        while not self._is_over:
            poller.poll(POLL_MS)
            while (received := receive_from(self._backend)) is not None:
                peer, frames, _ = received
                self._hear(peer, decode(frames, FROM_WORKER))
            while (received := receive_from(self._heartbeat)) is not None:
                peer, frames, _ = received
                self._feel(peer, decode(frames, FROM_HEARTBEAT))
            while self._outbox:
                self._send(self._backend, self._outbox.popleft())
        self._context.destroy(linger=0)

    def _hear(self, peer: bytes, message: FromWorker) -> None:
        self.heard.append(Heard(message, peer))
        if self.noise:
            self._send(self._backend, [peer, *self.noise()])
        if isinstance(message, Ready) and not self.is_mute:
            self._known.add(message.incarnation)
            self._send(self._backend, [peer, *encode(Welcome(self.epoch, self.payload_limit, 2000))])

    def _feel(self, peer: bytes, beat: Heartbeat) -> None:
        self.heard.append(Heard(beat, peer))
        if self.noise:
            self._send(self._heartbeat, [peer, *self.noise()])
        if not self.is_mute:
            reply: ToHeartbeat = Pong(self.epoch) if beat.busy or beat.incarnation in self._known else Who()
            self._send(self._heartbeat, [peer, *encode(reply)])

    def _send(self, sink: Socket, frames: list[Payload]) -> None:
        try:
            sink.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
