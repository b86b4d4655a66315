"""The worker's heartbeats: a thread with its own socket, so that a worker that computes is not taken for frozen."""

import os
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import assert_never

import zmq

from racepool.protocol import clock
from racepool.protocol.errors import SettingsError
from racepool.protocol.frames import TO_HEARTBEAT, BadFrameError, decode, encode
from racepool.protocol.messages import Heartbeat, Id
from racepool.protocol.processes import resident_bytes
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context, PeerKeys, Socket, dealer, receive, say
from racepool.worker.core import Session, WorkerCore
from racepool.worker.heartbeat import Beat, HeartbeatCore, OpenSocket

HEARTBEAT_DEAD = 70


@dataclass(frozen=True)
class MainThread:
    """What the heartbeat thread calls on the main thread. It must not block: the main thread may compute."""

    wake: Callable[[], None]
    on_beat: Callable[[], None] = lambda: None
    is_asked_to_end: Callable[[], bool] = lambda: False


class Pulse:
    """Beats every heartbeat interval while the core has a session, and notices when the broker does not know it.

    It only reads the core. When a session is lost it writes its id into `lost` and wakes the main thread. It calls
    `on_beat` about as often as it beats.
    """

    def __init__(
        self, context: Context, settings: Settings, core: WorkerCore, main: MainThread, keys: PeerKeys | None = None
    ) -> None:
        self.lost: Id | None = None
        self._context = context
        self._settings = settings
        self._keys = keys
        self._core = core
        self._main = main
        self._heartbeat = HeartbeatCore(
            core.session, clock.now(), interval_s=settings.heartbeat_interval, liveness_s=settings.liveness
        )
        self._socket: Socket | None = None
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = zmq.Poller()
        self._poller.register(self._stop, zmq.POLLIN)
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
            while not self._turn():
                pass
            self._close_socket()
        except BaseException:  # noqa: BLE001  # without heartbeats the broker takes this worker for frozen
            traceback.print_exc()
            os._exit(HEARTBEAT_DEAD)

    def _turn(self) -> bool:
        """Beats if it is time, and receives all answers. True when it must stop."""
        for action in self._heartbeat.on_tick(self._core.session, clock.now()):
            match action:
                case OpenSocket():
                    self._open_socket()
                case Beat(session):
                    self._beat(session)
                case _:
                    assert_never(action)
        self._main.on_beat()
        asleep_s = max(0.0, self._heartbeat.next_check() - clock.now())
        if self._stop in dict(self._poller.poll(ceil(asleep_s * 1000))):
            return True
        while self._socket is not None and (frames := receive(self._socket)) is not None:
            self._on_frames(frames)
        return False

    def _beat(self, session: Session) -> None:
        me = self._core.identity
        beat = Heartbeat(
            session.id,
            me.name,
            me.pid,
            me.version,
            me.started_at_ms,
            busy=self._core.is_busy,
            draining=self._main.is_asked_to_end(),
            rss_bytes=resident_bytes(),
        )
        if self._socket is not None:
            say(self._socket, encode(beat))

    def _on_frames(self, frames: list[bytes]) -> None:
        try:
            reply = decode(frames, TO_HEARTBEAT)
        except BadFrameError:
            return  # a broker of another version; the main thread gets the same answer to its READY, and logs it
        lost = self._heartbeat.on_answer(reply, clock.now())
        if lost is not None:
            self.lost = lost
            self._main.wake()

    def _open_socket(self) -> None:
        """Opens a fresh socket; none if there is no directory for it, or a foreign one. The core tries again."""
        self._close_socket()
        with suppress(FileNotFoundError, SettingsError):
            self._socket = dealer(self._context, self._settings.heartbeat_endpoint, self._keys)
            self._poller.register(self._socket, zmq.POLLIN)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close(linger=0)
            self._socket = None
