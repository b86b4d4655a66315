"""What supervisord does not see or does not hurry to do, as an event listener of it.

The program is `python -P -m racepool.supervision.watchdog`.

It kills a broker that is frozen for good, and a frozen worker that no broker knows; and it wakes supervisord when a
process ends, so that it is started anew at once. Whatever becomes of it, nothing else suffers.
"""

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from typing import assert_never

import orjson
import zmq
from supervisor.states import ProcessStates

from racepool.protocol.endpoints import is_tcp, stats_endpoint
from racepool.protocol.exits import Exit
from racepool.protocol.processes import die_with_supervisor, process_state, raise_file_limit
from racepool.protocol.sockets import Context, PeerKeys, Socket, dealer, receive, say
from racepool.supervision.rpc import SERVER_URL, Supervisor
from racepool.supervision.watchdog_core import Action, Kill, Probe, Survey, Unwatch, Watch, WatchdogCore

MAX_SLEEP_S = 1.0
THROTTLE_S = 1.0  # supervisord restarts at once; a watchdog that cannot start must not spin
READY = b"READY\n"
DONE = b"RESULT 2\nOK"


class Events:
    """supervisord's events on standard input, one at a time. Which they are nobody asks: each means, look at the table.

    Standard output belongs to their protocol.
    """

    def __init__(self) -> None:
        os.set_blocking(sys.stdin.fileno(), False)
        self._read = b""
        self._answer(READY)

    def fileno(self) -> int:
        """The descriptor that becomes readable with each event."""
        return sys.stdin.fileno()

    def take(self) -> bool:
        """Reads what is there; whether a whole event has come, which is thereby done.

        Raises:
            EOFError: supervisord is gone.
        """
        chunk = os.read(self.fileno(), 65_536)
        if not chunk:
            raise EOFError
        self._read += chunk
        header, newline, payload = self._read.partition(b"\n")
        if not newline or len(payload) < int(header.rpartition(b"len:")[2]):
            return False
        self._read = b""  # the next one comes only after our answer
        self._answer(DONE + READY)
        return True

    @staticmethod
    def _answer(token: bytes) -> None:
        os.write(sys.stdout.fileno(), token)


class Watchdog:
    """One life of the watchdog. `run` returns when supervisord has gone; it ends it by SIGTERM, or dies before."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._core = WatchdogCore(process_state)
        self._events = Events()
        self._context: Context = zmq.Context()
        self._socket: Socket | None = None
        self._refusals: Socket | None = None
        self._complaint = ""
        self._broker_pid = 0  # to which the socket was opened
        self._ends = select.epoll()  # of pidfds: a pidfd names one process for good
        self._pidfds: dict[int, int] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._events, zmq.POLLIN)
        self._poller.register(self._ends, zmq.POLLIN)

    def run(self) -> None:
        """Watches for as long as there is a supervisord."""
        with suppress(EOFError):
            while True:
                self._turn()

    def _turn(self) -> None:
        asleep_s = max(0.0, min(self._core.next_check() - time.monotonic(), MAX_SLEEP_S))
        ready = dict(self._poller.poll(ceil(asleep_s * 1000)))
        if self._ends.fileno() in ready:
            ended = {pidfd for pidfd, _ in self._ends.poll(0)}
            for pid in [pid for pid, pidfd in self._pidfds.items() if pidfd in ended]:
                self._perform(self._core.on_end(pid, time.monotonic()))
        if self._events.fileno() in ready and self._events.take():
            self._perform(self._core.on_event(time.monotonic()))
        if self._socket in ready:
            self._hear()
        if self._refusals in ready:
            self._close_socket()  # libzmq does not try again with a key that was refused
            self._core.on_refusal(time.monotonic())
        self._perform(self._core.on_tick(time.monotonic()))

    def _hear(self) -> None:
        while self._socket is not None and (frames := receive(self._socket)) is not None:
            broker_pid, worker_pids = _pids(frames[-1])
            self._perform(self._core.on_answer(broker_pid, worker_pids, time.monotonic()))

    def _perform(self, actions: Iterable[Action]) -> None:
        todo = deque(actions)
        while todo:
            match todo.popleft():
                case Survey():
                    table = self._supervisor.table()
                    if table is not None:
                        todo.extend(self._core.on_table(table, time.monotonic()))
                case Probe(pid):
                    self._probe(pid)
                case Watch(pid):
                    self._watch(pid)
                case Unwatch(pid):
                    self._unwatch(pid)
                case Kill() as kill:
                    self._kill(kill)
                case action:
                    assert_never(action)

    def _probe(self, broker_pid: int) -> None:
        """Asks through one socket for each broker process: an answer that comes late is a sign of life as well."""
        if self._socket is None or broker_pid != self._broker_pid:
            self._close_socket()
            endpoint = stats_endpoint()
            try:
                keys = _keys(endpoint)
            except ValueError as error:  # a SettingsError: without keys it still knows who is stopped
                self._complain(str(error))
                return
            self._open_socket(endpoint, keys)
            self._broker_pid = broker_pid
        if self._socket is not None:
            say(self._socket, [b"stats"])

    def _open_socket(self, endpoint: str, keys: PeerKeys | None) -> None:
        opened = self._socket = dealer(self._context, endpoint, keys)
        self._poller.register(opened, zmq.POLLIN)
        if keys is not None:
            self._refusals = opened.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
            self._poller.register(self._refusals, zmq.POLLIN)

    def _close_socket(self) -> None:
        if self._socket is None:
            return
        if self._refusals is not None:
            self._poller.unregister(self._refusals)
            self._socket.disable_monitor()
            self._refusals.close(linger=0)
            self._refusals = None
        self._poller.unregister(self._socket)
        self._socket.close(linger=0)
        self._socket = None

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            sys.stderr.write(f"watchdog: {reason}; until then a broker that hangs is not replaced\n")
            sys.stderr.flush()

    def _watch(self, pid: int) -> None:
        with suppress(OSError):  # it is gone, which the next table tells; or we are out of descriptors
            self._pidfds[pid] = os.pidfd_open(pid)
            self._ends.register(self._pidfds[pid], select.EPOLLIN)

    def _unwatch(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid, None)
        if pidfd is not None:
            self._ends.unregister(pidfd)
            os.close(pidfd)

    def _kill(self, kill: Kill) -> None:
        """With the pidfd open already, supervisord says whose pid it is: so nobody else can be hit."""
        pidfd = self._pidfds.get(kill.pid)
        process = self._supervisor.process(kill.name)
        if pidfd is None or process is None or (process.pid, process.state) != (kill.pid, ProcessStates.RUNNING):
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _log_kill(kill)


def _pids(figures: bytes) -> tuple[int | None, list[int]]:
    """The broker's pid and its workers'."""
    try:
        told = orjson.loads(figures)
        return told["broker"]["pid"], [worker["pid"] for worker in told["workers"]]
    except (ValueError, TypeError, LookupError):
        return None, []


def _keys(endpoint: str) -> PeerKeys | None:
    """As for the log: only a pool that is monitored over tcp pays for what keys need."""
    if not is_tcp(endpoint):
        return None
    from racepool.protocol.keys import Role, peer_keys  # noqa: PLC0415
    from racepool.protocol.settings import Settings  # noqa: PLC0415

    return peer_keys(Settings.load(), Role.CLIENT, endpoint)


def _log_kill(kill: Kill) -> None:
    """What a log line needs is most of a Python program, and hardly ever used here: it is loaded when it is."""
    from racepool.protocol.logs import open_log  # noqa: PLC0415
    from racepool.protocol.settings import Settings  # noqa: PLC0415

    log = open_log(Settings.load(), sys.stderr, program="watchdog")
    log.warning(kill.event, process=kill.name, pid=kill.pid, silent_s=round(kill.silent_s, 3))


def main() -> int:
    """Runs the watchdog until supervisord ends; returns its exit code."""
    die_with_supervisor()
    try:
        supervisor = Supervisor()
    except KeyError:
        sys.stderr.write(f"watchdog: no {SERVER_URL}; it runs under a supervisord with a control socket\n")
        time.sleep(THROTTLE_S)
        return Exit.USAGE
    raise_file_limit()
    Watchdog(supervisor).run()
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
