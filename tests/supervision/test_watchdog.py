"""The watchdog as a process of its own; the test plays supervisord and the broker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

import pytest
import zmq
from supervisor.states import ProcessStates

from racepool.protocol.exits import Exit
from racepool.protocol.keys import Role
from racepool.supervision.watchdog import THROTTLE_S
from racepool.supervision.watchdog_core import POKES
from tests.key_files import Keyring, write_pair
from tests.running import WaitUntil, environment

pytestmark = pytest.mark.system
READY = b"READY\n"
DONE = b"RESULT 2\nOK"
EVENT = b"ver:3.0 server:my: len:9 supervisor serial:21 pool:watchdog poolserial:10 eventname:TICK_5 len:15\n"
PAYLOAD = b"when:1201063880"


class Supervisord:
    """A table of processes, the watchdog that it started, and how often that asked for the table."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.is_shutting_down = False
        self._server = SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        self._server.register_function(self._table, "supervisor.getAllProcessInfo")
        self._server.register_function(self._process, "supervisor.getProcessInfo")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.watchdog = subprocess.Popen(
            [sys.executable, "-P", "-m", "racepool.supervision.watchdog"],
            env=environment(directory) | {"SUPERVISOR_SERVER_URL": url} | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def say(self, data: bytes) -> None:
        assert self.watchdog.stdin is not None
        self.watchdog.stdin.write(data)
        self.watchdog.stdin.flush()

    def hear(self, length: int) -> bytes:
        assert self.watchdog.stdout is not None
        return self.watchdog.stdout.read(length)

    def put(self, name: str, pid: int, state: int = ProcessStates.RUNNING) -> None:
        self.rows[name] = {"name": name, "group": name.partition("-")[0], "pid": pid, "state": state}

    def open_files(self, kind: str = "") -> int:
        """How many descriptors of a kind the watchdog has open."""
        count = 0
        for descriptor in Path(f"/proc/{self.watchdog.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                count += kind in os.readlink(descriptor)  # noqa: PTH115  # what it is, not where
        return count

    def close(self) -> None:
        self.watchdog.kill()
        self.watchdog.wait()
        for stream in (self.watchdog.stdin, self.watchdog.stdout, self.watchdog.stderr):
            assert stream is not None
            stream.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _table(self) -> list[dict[str, Any]]:
        self.asked += 1
        return list(self.rows.values())

    def _process(self, name: Any) -> dict[str, Any]:  # noqa: ANN401  # as xmlrpc has it
        return self.rows[name.partition(":")[2]]


@pytest.fixture
def supervisord(run_dir: Path) -> Iterator[Supervisord]:
    made = Supervisord(run_dir)
    yield made
    made.close()


@pytest.fixture
def broker(run_dir: Path) -> Iterator["zmq.Socket[bytes]"]:
    """The broker's stats socket."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        bound.set(zmq.LINGER, 0)
        bound.set(zmq.RCVTIMEO, 20_000)
        bound.bind(f"ipc://{run_dir}/stats.ipc")
        yield bound


def answer(broker: "zmq.Socket[bytes]", broker_pid: int) -> bytes:
    """Answers the next question; returns the connection that it came through."""
    connection, _ = broker.recv_multipart()
    broker.send_multipart([connection, json.dumps({"broker": {"pid": broker_pid}, "workers": []}).encode()])
    return connection


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:  # noqa: S607
        yield process
        process.kill()


def test_events_are_answered_one_by_one_and_have_it_look(supervisord: Supervisord, wait_until: WaitUntil) -> None:
    assert supervisord.hear(len(READY)) == READY
    wait_until(lambda: supervisord.asked == 1)

    for number in (2, 3):
        supervisord.say(EVENT + PAYLOAD[:4])
        supervisord.say(PAYLOAD[4:])
        assert supervisord.hear(len(DONE + READY)) == DONE + READY
        wait_until(lambda number=number: supervisord.asked == number)


def test_it_ends_with_supervisord(supervisord: Supervisord) -> None:
    assert supervisord.hear(len(READY)) == READY

    assert supervisord.watchdog.stdin is not None
    supervisord.watchdog.stdin.close()

    assert supervisord.watchdog.wait(10) == 0


def test_supervisord_is_asked_until_an_ended_process_is_back(
    supervisord: Supervisord, child: subprocess.Popen[bytes], wait_until: WaitUntil
) -> None:
    supervisord.put("worker-0", child.pid)
    supervisord.hear(len(READY))
    wait_until(lambda: supervisord.asked == 1)
    supervisord.say(EVENT + PAYLOAD)
    wait_until(lambda: supervisord.asked == 2)

    child.kill()

    wait_until(lambda: supervisord.asked >= 4)
    with subprocess.Popen(["sleep", "60"]) as next_child:  # noqa: S607
        supervisord.put("worker-0", next_child.pid)
        wait_until(lambda: supervisord.asked >= 5)
        next_child.kill()
        wait_until(lambda: supervisord.asked > 2 + POKES)


def test_stopped_broker_is_killed_and_told_in_the_log(
    supervisord: Supervisord, child: subprocess.Popen[bytes], wait_until: WaitUntil
) -> None:
    child.send_signal(signal.SIGSTOP)
    supervisord.put("broker", child.pid)

    wait_until(child.poll, 40)

    assert child.returncode == -signal.SIGKILL
    assert supervisord.watchdog.stderr is not None
    told = json.loads(supervisord.watchdog.stderr.readline())
    assert (told["event"], told["level"], told["program"]) == ("broker_killed", "warning", "watchdog")
    assert (told["process"], told["pid"]) == ("broker:broker", child.pid)
    assert told["silent_s"] >= 6


@pytest.mark.parametrize("changed", [{"state": ProcessStates.STOPPING}, {"pid": 1}], ids=["state", "pid"])
def test_process_that_supervisord_no_longer_calls_running_is_not_hit(
    supervisord: Supervisord, broker: "zmq.Socket[bytes]", child: subprocess.Popen[bytes], changed: dict[str, int]
) -> None:
    supervisord.put("broker", child.pid)
    answer(broker, child.pid)
    child.send_signal(signal.SIGSTOP)
    supervisord.rows["broker"].update(changed)  # the watchdog still has the table from before

    for _ in range(4):  # the third and the fourth question follow a decision to kill
        broker.recv_multipart()

    assert child.poll() is None


def test_questions_to_one_broker_process_share_a_connection_and_the_next_process_gets_another(
    supervisord: Supervisord, broker: "zmq.Socket[bytes]", child: subprocess.Popen[bytes], wait_until: WaitUntil
) -> None:
    supervisord.put("broker", child.pid)
    first = [answer(broker, child.pid) for _ in range(3)]
    open_files = supervisord.open_files()

    with subprocess.Popen(["sleep", "60"]) as next_child:  # noqa: S607
        supervisord.put("broker", next_child.pid)
        supervisord.say(EVENT + PAYLOAD)
        following = [answer(broker, next_child.pid) for _ in range(4)]
        next_child.kill()

    assert len(set(first)) == 1
    assert following[-1] not in first
    assert following[-1] == following[-2]
    wait_until(lambda: supervisord.open_files() <= open_files)  # the old connection is closed


def test_processes_that_have_ended_leave_no_descriptor_open(supervisord: Supervisord, wait_until: WaitUntil) -> None:
    supervisord.hear(len(READY))
    wait_until(lambda: supervisord.asked == 1)

    with ExitStack() as children:
        for number in range(5):
            process = children.enter_context(subprocess.Popen(["sleep", "60"]))  # noqa: S607
            children.callback(process.kill)
            supervisord.put(f"worker-{number}", process.pid)
        supervisord.say(EVENT + PAYLOAD)
        wait_until(lambda: supervisord.open_files("pidfd") == 5)

    wait_until(lambda: supervisord.open_files("pidfd") == 0)


def test_without_a_key_it_complains_once_and_still_kills_a_stopped_broker(
    run_dir: Path, child: subprocess.Popen[bytes], wait_until: WaitUntil
) -> None:
    endpoint = {"RACEPOOL_STATS_ENDPOINT": "tcp://127.0.0.1:1", "RACEPOOL_KEYS": str(run_dir / "none")}
    child.send_signal(signal.SIGSTOP)
    supervisord = Supervisord(run_dir, **endpoint)
    try:
        supervisord.put("broker", child.pid)
        wait_until(child.poll, 40)

        assert supervisord.watchdog.stderr is not None
        assert b"a broker that hangs is not replaced" in supervisord.watchdog.stderr.readline()
        assert json.loads(supervisord.watchdog.stderr.readline())["event"] == "broker_killed"
    finally:
        supervisord.close()


class Door:
    """Answers libzmq's questions whether a key may come in (ZAP), for a context."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._asked = context.socket(zmq.REP)
        self._asked.bind("inproc://zeromq.zap.01")

    def decide(self, code: bytes) -> None:
        """Answers the next question; b"400" refuses the key, b"200" lets it in."""
        assert self._asked.poll(20_000)
        version, request_id, *_ = self._asked.recv_multipart()
        self._asked.send_multipart([version, request_id, code, b"", b"", b""])


def test_watchdog_whose_key_was_refused_asks_again_on_another_connection(
    run_dir: Path, child: subprocess.Popen[bytes]
) -> None:
    ring = Keyring(run_dir / "keys")
    write_pair(ring.dir, Role.CLIENT, ring.stranger().own)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as broker:
        door = Door(context)
        broker.set(zmq.CURVE_SERVER, 1)
        broker.set(zmq.CURVE_SECRETKEY, ring.broker.secret)
        broker.set(zmq.ZAP_DOMAIN, b"test")
        broker.set(zmq.RCVTIMEO, 20_000)
        port = broker.bind_to_random_port("tcp://127.0.0.1")
        endpoint = {"RACEPOOL_STATS_ENDPOINT": f"tcp://127.0.0.1:{port}", "RACEPOOL_KEYS": str(ring.dir)}
        supervisord = Supervisord(run_dir, **endpoint)
        try:
            supervisord.put("broker", child.pid)

            door.decide(b"400")
            door.decide(b"400")
            door.decide(b"200")

            answer(broker, child.pid)
        finally:
            supervisord.close()
            context.destroy(linger=0)


def test_one_that_was_started_by_hand_says_what_it_is_for(run_dir: Path) -> None:
    env = {name: value for name, value in environment(run_dir).items() if not name.startswith("SUPERVISOR_")}

    began_at = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-P", "-m", "racepool.supervision.watchdog"],
        env=env, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert time.monotonic() - began_at >= THROTTLE_S, "a supervisord would restart it at once"
    assert done.returncode == Exit.USAGE
    assert "SUPERVISOR_SERVER_URL" in done.stderr
    assert "Traceback" not in done.stderr
