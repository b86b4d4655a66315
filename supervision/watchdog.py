"""The watchdog: an event listener of supervisord that does what supervisord does not see, or does too late.

The program is `python -P -m racepool.supervision.watchdog`.

It kills a broker that stays frozen, and a frozen worker that the broker does not know. It wakes supervisord when a
process ends, so that supervisord restarts the process at once. When supervisord was killed, it ends what is left of the
pool (only under racepool's own supervisord, whose processes have a mark). A pool also works without its watchdog.
"""

import os
import select
import signal
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from typing import assert_never

import orjson
import zmq
from supervisor.states import ProcessStates

from racepool.client.stats_socket import StatsSocket
from racepool.protocol import clock
from racepool.protocol.endpoints import is_tcp, stats_endpoint
from racepool.protocol.errors import SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.processes import die_with_supervisor, outlive_parent, process_state, raise_file_limit
from racepool.protocol.sockets import PeerKeys, Socket
from racepool.supervision.orphans import kill_marked, mark_of
from racepool.supervision.rpc import SERVER_URL, Supervisor
from racepool.supervision.watchdog_core import (
    Action,
    KillProcess,
    ProbeBroker,
    ReadTable,
    UnwatchProcess,
    WatchdogCore,
    WatchProcess,
)

MAX_SLEEP_S = 1.0
LOOK_S = 0.005
DEATH_S = 1.0  # the pipe from a killed supervisord closes a moment before the kernel calls it dead
THROTTLE_S = 1.0  # a watchdog that cannot start waits: supervisord restarts it at once, again and again
READY = b"READY\n"
DONE = b"RESULT 2\nOK"


class EventListener:
    """Takes supervisord's events from standard input, one at a time, and answers each on standard output.

    The type of an event is ignored: after each one the watchdog reads supervisord's table. Nothing else may be written
    to standard output.
    """

    def __init__(self) -> None:
        os.set_blocking(sys.stdin.fileno(), False)
        self._read = b""
        self._answer(READY)

    def fileno(self) -> int:
        """The descriptor that becomes readable with each event."""
        return sys.stdin.fileno()

    def take(self) -> bool:
        """Reads what has come. When an event is complete, answers it and returns True.

        Raises:
            EOFError: supervisord has ended.
        """
        chunk = os.read(self.fileno(), 65_536)
        if not chunk:
            raise EOFError
        self._read += chunk
        header, newline, payload = self._read.partition(b"\n")
        if not newline or len(payload) < int(header.rpartition(b"len:")[2]):
            return False
        self._read = b""  # no other event follows it yet: supervisord sends the next one after our answer
        self._answer(DONE + READY)
        return True

    @staticmethod
    def _answer(token: bytes) -> None:
        os.write(sys.stdout.fileno(), token)


class Watchdog:
    """Reads supervisord's events, the ends of processes and the broker's answers, and performs what the core decides.

    `run` returns when supervisord has ended.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._core = WatchdogCore(process_state)
        self._events = EventListener()
        self._stats: StatsSocket | None = None
        self._refusals: Socket | None = None  # of self._stats, over tcp
        self._broker_pid = 0  # self._stats was opened for this broker process
        self._complaint = ""  # the last one, so that it is written once
        self._pidfds: dict[int, int] = {}  # by pid; a pidfd never names another process
        self._ends = select.epoll()  # holds all pidfds, and is readable when one of the processes has ended
        self._poller = zmq.Poller()
        self._poller.register(self._events, zmq.POLLIN)
        self._poller.register(self._ends, zmq.POLLIN)

    def run(self) -> None:
        """Runs until supervisord ends."""
        with suppress(EOFError):
            while True:
                self._turn()

    def _turn(self) -> None:
        asleep_s = max(0.0, min(self._core.next_check() - clock.now(), MAX_SLEEP_S))
        ready = dict(self._poller.poll(ceil(asleep_s * 1000)))
        if self._ends.fileno() in ready:
            ended = {pidfd for pidfd, _ in self._ends.poll(0)}
            for pid in [pid for pid, pidfd in self._pidfds.items() if pidfd in ended]:
                self._perform(self._core.on_end(pid, clock.now()))
        if self._events.fileno() in ready and self._events.take():
            self._perform(self._core.on_event(clock.now()))
        if self._stats is not None and self._stats.socket in ready:
            self._hear(self._stats)
        if self._refusals in ready:
            self._disconnect()  # libzmq does not try again with a key that was refused
            self._core.on_refusal(clock.now())
        self._perform(self._core.on_tick(clock.now()))

    def _hear(self, stats: StatsSocket) -> None:
        while (answer := stats.answer()) is not None:
            broker_pid, worker_pids = _pids(answer)
            self._perform(self._core.on_answer(broker_pid, worker_pids, clock.now()))

    def _perform(self, actions: Iterable[Action]) -> None:
        todo = deque(actions)
        while todo:
            match todo.popleft():
                case ReadTable():
                    table = self._supervisor.table()
                    if table is not None:
                        todo.extend(self._core.on_table(table, clock.now()))
                case ProbeBroker(pid):
                    self._probe(pid)
                case WatchProcess(pid):
                    self._watch(pid)
                case UnwatchProcess(pid):
                    self._unwatch(pid)
                case KillProcess() as kill:
                    self._kill(kill)
                case action:
                    assert_never(action)

    def _probe(self, broker_pid: int) -> None:
        """Asks through one socket while it is the same broker process: also a late answer is a sign of life."""
        if self._stats is None or broker_pid != self._broker_pid:
            self._disconnect()
            self._connect()
            self._broker_pid = broker_pid
        if self._stats is not None:
            self._stats.ask()

    def _connect(self) -> None:
        endpoint = stats_endpoint()
        try:
            keys = _keys(endpoint)
            self._stats = StatsSocket(endpoint, keys)
        except (SettingsError, FileNotFoundError) as error:  # it can still kill a broker that the kernel calls stopped
            self._complain(str(error))
            return
        self._poller.register(self._stats.socket, zmq.POLLIN)
        if keys is not None:
            self._refusals = self._stats.refusals()
            self._poller.register(self._refusals, zmq.POLLIN)

    def _disconnect(self) -> None:
        if self._stats is None:
            return
        if self._refusals is not None:
            self._poller.unregister(self._refusals)
            self._refusals = None
        self._poller.unregister(self._stats.socket)
        self._stats.close()
        self._stats = None

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            sys.stderr.write(f"watchdog: {reason}; until then a broker that hangs is not replaced\n")
            sys.stderr.flush()

    def _watch(self, pid: int) -> None:
        with suppress(OSError):  # it has ended, and the next table shows that; or no descriptor is left
            self._pidfds[pid] = os.pidfd_open(pid)
            self._ends.register(self._pidfds[pid], select.EPOLLIN)

    def _unwatch(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid, None)
        if pidfd is not None:
            self._ends.unregister(pidfd)
            os.close(pidfd)

    def _kill(self, kill: KillProcess) -> None:
        """Sends SIGKILL if supervisord still calls the process running.

        The pidfd was opened before supervisord is asked, so the signal cannot reach another process with this pid.
        """
        pidfd = self._pidfds.get(kill.pid)
        process = self._supervisor.process(kill.name)
        if pidfd is None or process is None or (process.pid, process.state) != (kill.pid, ProcessStates.RUNNING):
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _log_kill(kill)


def _pids(answer: bytes) -> tuple[int | None, list[int]]:
    """The pids of the broker and its workers; None where the answer is no stats."""
    try:
        stats = orjson.loads(answer)
        return stats["broker"]["pid"], [worker["pid"] for worker in stats["workers"]]
    except (ValueError, TypeError, LookupError):
        return None, []


def _keys(endpoint: str) -> PeerKeys | None:
    """The client's keys, None over ipc. Imported late: only a pool with a stats socket on tcp loads the settings."""
    if not is_tcp(endpoint):
        return None
    from racepool.protocol.keys import Role, peer_keys  # noqa: PLC0415
    from racepool.protocol.settings import Settings  # noqa: PLC0415

    return peer_keys(Settings.load(), Role.CLIENT, endpoint)


def _log_kill(kill: KillProcess) -> None:
    """Imported late: settings and log would make up most of this program's memory, and a kill is rare."""
    from racepool.protocol.logs import open_log  # noqa: PLC0415
    from racepool.protocol.settings import Settings  # noqa: PLC0415

    log = open_log(Settings.load(), sys.stderr, program="watchdog")
    log.warning(kill.event, process=kill.name, pid=kill.pid, silent_s=round(kill.silent_s, 3))


def _sweep_after(supervisord: int, mark: bytes) -> None:
    """Ends what is left of the pool if supervisord was killed: nobody else ends what workers have started."""
    deadline = clock.now() + DEATH_S
    while os.getppid() == supervisord:
        if clock.now() > deadline:
            return
        clock.sleep(LOOK_S)
    kill_marked(mark)


def main() -> int:
    """Runs the watchdog until supervisord ends; returns its exit code."""
    die_with_supervisor()
    mark, supervisord = mark_of(os.getpid()), os.getppid()
    if mark:
        outlive_parent()
    try:
        supervisor = Supervisor()
    except KeyError:
        sys.stderr.write(f"watchdog: no {SERVER_URL}; it runs under a supervisord with a control socket\n")
        clock.sleep(THROTTLE_S)
        return Exit.USAGE
    raise_file_limit()
    try:
        Watchdog(supervisor).run()
    finally:
        _sweep_after(supervisord, mark)
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
