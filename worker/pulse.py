"""The worker's heartbeats: a small thread with a socket of its own, so that a busy main thread stays in sight."""

import os
import threading
import time
import traceback
from collections.abc import Callable
from math import ceil

import zmq

from protocol.messages import TO_HEARTBEAT, BadFrameError, Heartbeat, Id, Pong, decode, encode
from protocol.processes import resident_bytes
from protocol.settings import Settings
from protocol.sockets import Context, Socket, dealer, receive
from worker.core import Session, WorkerCore

HEARTBEAT_DEAD = 70


class Pulse:
    """Beats every heartbeat interval while the core has a session, and tells when the broker does not know it.

    It only reads the core, and calls `on_beat` with each beat. What it finds out it leaves in `lost` and wakes the main
    thread; a socket that hears nothing for the liveness is replaced, since a broker on another host may have gone
    without a word.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        core: WorkerCore,
        wake: Callable[[], None],
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.lost: Id | None = None
        self._context = context
        self._settings = settings
        self._core = core
        self._wake = wake
        self._on_beat = on_beat
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="racepool-heartbeat", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, which closes its socket."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._beat_through_one_socket():
                pass
        except BaseException:  # noqa: BLE001  # without heartbeats the broker would take this worker for frozen
            traceback.print_exc()
            os._exit(HEARTBEAT_DEAD)

    def _beat_through_one_socket(self) -> bool:
        """Beats for one session until that is over, or the broker silent for the liveness; false when told to stop."""
        session = self._core.session
        socket = dealer(self._context, self._settings.heartbeat_endpoint)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._stop, zmq.POLLIN)
        heard_at = beat_at = time.monotonic()
        try:
            while (now := time.monotonic()) < heard_at + self._settings.liveness:
                if now >= beat_at:
                    latest = self._core.session
                    if latest.incarnation != session.incarnation:
                        return True
                    session = latest
                    self._beat(socket, session)
                    self._on_beat()
                    beat_at = now + self._settings.heartbeat_interval
                ready = dict(poller.poll(ceil((beat_at - now) * 1000)))
                if self._stop in ready:
                    return False
                while (frames := receive(socket)) is not None:
                    heard_at = time.monotonic()
                    self._on_frames(frames, session)
            return True
        finally:
            socket.close(linger=0)

    def _beat(self, socket: Socket, session: Session) -> None:
        if session.epoch is None:
            return  # not welcomed yet: a beat could overtake the READY
        me, is_busy = self._core.identity, self._core.task is not None
        socket.send_multipart(
            encode(
                Heartbeat(session.incarnation, me.name, me.pid, me.version, me.started_at_ms, is_busy, resident_bytes())
            )
        )

    def _on_frames(self, frames: list[bytes], session: Session) -> None:
        try:
            reply = decode(frames, TO_HEARTBEAT)
        except BadFrameError:
            return  # a broker of another version: the READY's answer tells the same to the main thread
        if not (isinstance(reply, Pong) and reply.epoch == session.epoch):
            self.lost = session.incarnation
            self._wake()
