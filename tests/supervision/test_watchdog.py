"""The watchdog as a process of its own, under a supervisord and beside a broker that the test plays."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

import pytest
import zmq
from supervisor.states import ProcessStates

from racepool.protocol.exits import Exit
from racepool.supervision.watchdog_core import POKES
from tests.running import WaitUntil, environment

READY = b"READY\n"
DONE = b"RESULT 2\nOK"
EVENT = b"ver:3.0 server:my: len:9 supervisor serial:21 pool:watchdog poolserial:10 eventname:TICK_5 len:15\n"
PAYLOAD = b"when:1201063880"


class Supervisord:
    """A table of processes, a watchdog below it, and how often it was asked."""

    def __init__(self, directory: Path) -> None:
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
            env=environment(directory) | {"SUPERVISOR_SERVER_URL": url},
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


def test_process_that_supervisord_no_longer_calls_running_is_not_hit(
    run_dir: Path, supervisord: Supervisord, child: subprocess.Popen[bytes]
) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as broker:
        broker.bind(f"ipc://{run_dir}/stats.ipc")
        supervisord.put("broker", child.pid)
        figures = {"broker": {"pid": child.pid}, "workers": []}
        assert broker.poll(10_000)
        broker.send_multipart([broker.recv_multipart()[0], json.dumps(figures).encode()])
        child.send_signal(signal.SIGSTOP)
        supervisord.put("broker", child.pid, ProcessStates.STOPPING)  # the watchdog has another table still

        asked = 0
        while asked < 4 and broker.poll(10_000):  # the third and fourth follow a verdict
            broker.recv_multipart()
            asked += 1

    assert asked == 4
    assert child.poll() is None


def test_one_that_was_started_by_hand_says_what_it_is_for(run_dir: Path) -> None:
    env = {name: value for name, value in environment(run_dir).items() if not name.startswith("SUPERVISOR_")}

    done = subprocess.run(
        [sys.executable, "-P", "-m", "racepool.supervision.watchdog"],
        env=env, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert done.returncode == Exit.USAGE
    assert "SUPERVISOR_SERVER_URL" in done.stderr
    assert "Traceback" not in done.stderr
