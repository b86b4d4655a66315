"""The broker as a process, and raw sockets as its peers: of our code they use the codec only."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM
from socket import socket as raw_socket
from statistics import median
from typing import Any

import pytest
import zmq

from racepool.broker import dead_tasks
from racepool.broker.frozen import PATIENCE
from racepool.broker.server import MAX_FOREIGN_VERSIONS
from racepool.protocol.endpoints import SOCKETS, sockets_in
from racepool.protocol.frames import TO_CLIENT, TO_HEARTBEAT, TO_WORKER, Inlet, decode, encode
from racepool.protocol.messages import (
    AskStats,
    Assign,
    Bye,
    Cancel,
    Epoch,
    Heartbeat,
    Hello,
    Id,
    Name,
    Outcome,
    Payload,
    Ping,
    Pong,
    Ready,
    Reject,
    Result,
    Stats,
    Submit,
    Welcome,
    Who,
)
from racepool.protocol.parcel import Parcel
from racepool.protocol.shared_memory import Segment
from racepool.protocol.sockets import Context, Socket, dealer
from racepool.protocol.stats import PoolStats
from tests.broker.building import ended
from tests.running import ROOT, WaitUntil, environment

PATIENCE_MS = 60_000
COMMANDS = b"HELLO SUBMIT CANCEL PING ASKSTATS READY RESULT HEARTBEAT".split()
HEARTBEAT = Heartbeat(Id(b"x" * 16), Name("nobody"), 1, Name("raw"), 0, busy=False, draining=False, rss_bytes=1)
SLOW = {"liveness": 60, "heartbeat_interval": 1}  # raw peers send no heartbeats


class Broker:
    """A broker process and the sockets of its peers."""

    def __init__(self, directory: Path, context: Context, **settings: Any) -> None:  # noqa: ANN401
        self.dir = directory
        self.endpoints = sockets_in(directory) | {name: str(settings[name]) for name in settings if name in SOCKETS}
        self._context = context
        self._sockets: list[Socket] = []
        self._children: list[subprocess.Popen[str]] = []
        self.process = self.start(directory, **settings)

    @staticmethod
    def start(directory: Path, **settings: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "racepool.broker"],
            cwd=ROOT,
            env=environment(directory, **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def dealer(self, setting: str = "endpoint") -> Socket:
        socket = dealer(self._context, self.endpoints[setting])
        socket.set(zmq.RCVTIMEO, PATIENCE_MS)
        self._sockets.append(socket)
        return socket

    def client(self) -> Socket:
        socket = self.dealer()
        send(socket, Hello(Id(os.urandom(16)), 1, os.getpid(), 0))
        assert isinstance(receive(socket, TO_CLIENT), Welcome)
        return socket

    def worker(self) -> tuple[Socket, Epoch]:
        """A worker with a random name and the pid of this process, so no test may let the broker kill it."""
        socket = self.dealer("backend")
        send(socket, Ready(Id(os.urandom(16)), 1, Name(os.urandom(8).hex()), os.getpid(), Name("raw"), 0))
        welcome = receive(socket, TO_WORKER)
        assert isinstance(welcome, Welcome)
        return socket, welcome.epoch

    def child(self, script: str, *arguments: str) -> "subprocess.Popen[str]":
        """A process that runs one of the scripts beside this file, and has printed its first line."""
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._children.append(child)
        assert child.stdout
        assert child.stdout.readline()
        return child

    def worker_process(self, name: str) -> "subprocess.Popen[str]":
        return self.child("raw_worker.py", self.endpoints["backend"], name)

    def stats(self) -> PoolStats:
        socket = self._context.socket(zmq.DEALER)
        with closing(socket):
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.RCVTIMEO, PATIENCE_MS)
            socket.connect(self.endpoints["stats_endpoint"])
            socket.send(b"?")
            return PoolStats.model_validate_json(socket.recv())

    def forget_peers(self) -> None:
        """Between tests: ends all peers of this process and its children."""
        for child in self._children:
            child.kill()
            child.communicate()
        for socket in self._sockets:
            if not socket.closed:
                send(socket, Bye())
                socket.close(linger=200)
        self._children.clear()
        self._sockets.clear()

    def end(self, signal_number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends the signal; returns the exit code and all output."""
        self.process.send_signal(signal_number)
        output, _ = self.process.communicate(timeout=10)
        return self.process.returncode, output


def send(socket: Socket, message: Any) -> None:  # noqa: ANN401
    socket.send_multipart(encode(message))


def receive(socket: Socket, inlet: Inlet[Any]) -> Any:  # noqa: ANN401
    return decode(socket.recv_multipart(), inlet)


def submit(payload: bytes = b"race", run_timeout_ms: int = 60_000) -> Submit:
    return Submit(Id(os.urandom(16)), run_timeout_ms, 0, again=False, is_shared=False, payload=payload)


def done(task: Assign, payload: bytes = b"done") -> Result:
    return Result(task.epoch, task.lease, task.task_id, Outcome.OK, recycle=False, payload=payload)


StartBroker = Callable[..., Broker]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture(scope="module")
def start_any(context: Context) -> Iterator[StartBroker]:
    started: list[Broker] = []

    def start(**settings: Any) -> Broker:  # noqa: ANN401
        directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))  # ipc paths must be short
        started.append(Broker(directory, context, **settings))
        return started[-1]

    yield start
    for broker in started:
        broker.process.kill()
        broker.process.communicate()
        shutil.rmtree(broker.dir, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(start_any: StartBroker) -> Broker:
    return start_any(**SLOW, payload_limit=2**20, log_level="error")


@pytest.fixture
def broker(shared: Broker, wait_until: WaitUntil) -> Iterator[Broker]:
    """One broker for many tests. Each test finds it without peers, and leaves it alive."""
    yield shared
    shared.forget_peers()
    assert shared.process.poll() is None
    wait_until(lambda: shared.stats().clients + shared.stats().total_workers == 0)


@pytest.fixture
def start(start_any: StartBroker) -> Iterator[StartBroker]:
    """Starts a broker for this test alone."""
    started: list[Broker] = []

    def start_own(**settings: Any) -> Broker:  # noqa: ANN401
        started.append(start_any(**settings))
        return started[-1]

    yield start_own
    for own in started:
        own.process.kill()
        own.forget_peers()


# --- the life of a task -----------------------------------------------------------------------------------------------


def test_whole_life_of_a_task(broker: Broker) -> None:
    client, (worker, epoch) = broker.client(), broker.worker()
    before = broker.stats().counters
    order = submit(b"what only client and worker understand")

    send(client, order)
    task = receive(worker, TO_WORKER)
    assert task == Assign(epoch, task.lease, order.task_id, 1, 60_000, False, order.payload)
    assert broker.stats().in_flight == 1
    send(worker, done(task, b"likewise"))

    assert ended(receive(client, TO_CLIENT)) == (order.task_id, Outcome.OK, 1, b"likewise")
    after = broker.stats()
    assert (after.in_flight, after.counters.completed - before.completed) == (0, 1)
    assert [(each.name, each.state, each.tasks_completed) for each in after.workers] == [
        (after.workers[0].name, "idle", 1)
    ]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 2**20])
def test_payloads_pass_untouched(broker: Broker, size: int) -> None:
    client, (worker, _) = broker.client(), broker.worker()
    payload, reply = random.randbytes(size), random.randbytes(size)

    send(client, submit(payload))
    task = receive(worker, TO_WORKER)
    send(worker, done(task, reply))

    assert task.payload == payload
    assert receive(client, TO_CLIENT).payload == reply


def test_task_of_a_killed_process_is_assigned_again_at_once(broker: Broker) -> None:
    client, victim = broker.client(), broker.worker_process("victim")
    send(client, submit())
    assert victim.stdout
    assert victim.stdout.readline() == "task 1\n"
    worker, _ = broker.worker()

    killed_at = time.monotonic()
    victim.kill()
    task = receive(worker, TO_WORKER)

    assert time.monotonic() - killed_at < 10.0  # the liveness here is a minute
    assert task.attempt == 2


def test_task_survives_the_death_of_all_workers_at_once(broker: Broker) -> None:
    workers = [broker.worker_process(f"worker-{index}") for index in range(3)]
    client = broker.client()
    send(client, submit())
    assert workers[0].stdout
    assert workers[0].stdout.readline() == "task 1\n"

    os.kill(broker.process.pid, signal.SIGSTOP)  # so that it notices all three deaths at once
    for each in workers:
        each.kill()
        each.wait()
    os.kill(broker.process.pid, signal.SIGCONT)

    worker, _ = broker.worker()
    task = receive(worker, TO_WORKER)
    assert task.attempt == 2
    send(worker, done(task))
    assert receive(client, TO_CLIENT).outcome is Outcome.OK


def test_task_survives_workers_that_die_one_right_after_the_other(start: StartBroker) -> None:
    broker = start(**SLOW, max_attempts=10)
    attempts = []
    for attempt in range(5):
        workers = [broker.worker_process(f"worker-{attempt}-{index}") for index in range(3)]
        client = broker.client()
        send(client, submit())
        assert workers[0].stdout
        assert workers[0].stdout.readline() == "task 1\n"

        for each in workers:
            each.kill()
            time.sleep(0.01)  # so that the broker notices the deaths one by one

        for each in workers:
            each.wait()
        worker, _ = broker.worker()
        task = receive(worker, TO_WORKER)
        attempts.append(task.attempt)
        send(worker, done(task))
        assert receive(client, TO_CLIENT).outcome is Outcome.OK
        broker.forget_peers()

    assert median(attempts) == 2  # on a busy machine, some may not die soon enough after the first


def test_run_timeout_kills_the_process(broker: Broker) -> None:
    client, victim = broker.client(), broker.worker_process("victim")
    order = submit(run_timeout_ms=200)

    send(client, order)

    assert ended(receive(client, TO_CLIENT)) == (order.task_id, Outcome.RUN_TIMEOUT, 1, b"")
    assert victim.wait(timeout=5) == -signal.SIGKILL


def test_cancel_with_kill_kills_the_process(broker: Broker) -> None:
    client, victim = broker.client(), broker.worker_process("victim")
    order = submit()
    send(client, order)
    assert victim.stdout
    victim.stdout.readline()

    send(client, Cancel(order.task_id, kill=True))

    assert victim.wait(timeout=5) == -signal.SIGKILL


def test_worker_that_ended_before_it_was_watched_is_not_counted(broker: Broker, wait_until: WaitUntil) -> None:
    os.kill(broker.process.pid, signal.SIGSTOP)
    ghost = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("raw_worker.py")), broker.endpoints["backend"], "ghost"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    wait_until(lambda: b"python" in Path(f"/proc/{ghost.pid}/cmdline").read_bytes())
    ghost.kill()
    ghost.wait()
    os.kill(broker.process.pid, signal.SIGCONT)

    assert broker.stats().total_workers == 0


@pytest.mark.system
def test_process_that_got_the_descriptor_of_a_dead_worker_is_not_killed(start: StartBroker) -> None:
    broker = start(liveness=0.4, heartbeat_interval=0.1)
    ghosts, heirs = {}, []
    for name in ("ghost-0", "ghost-1", "ghost-2"):  # three, because which READY is read in time depends on luck
        ghost = broker.child("ready_sayer.py", broker.endpoints["backend"], name)
        ghosts[name] = ghost.pid
        assert ghost.stdin
        assert ghost.stdout
        os.kill(broker.process.pid, signal.SIGSTOP)
        ghost.stdin.write("speak\n")
        ghost.stdin.flush()
        assert ghost.stdout.readline() == "spoken\n"
        ghost.kill()
        ghost.wait()
        heirs.append(broker.child("ready_sayer.py", broker.endpoints["endpoint"], "heir"))
        os.kill(broker.process.pid, signal.SIGCONT)
        broker.stats()

    time.sleep(0.4 * (PATIENCE + 1))

    assert [heir.poll() for heir in heirs] == [None] * len(heirs)
    told = [json.loads(line) for line in broker.end()[1].splitlines()]
    assert all(event["pid"] == ghosts[event["worker"]] for event in told if event.get("worker"))


def test_process_that_claims_another_pid_is_not_watched_and_neither_is_the_other(
    broker: Broker, wait_until: WaitUntil
) -> None:
    other, liar = broker.child("ready_sayer.py", broker.endpoints["endpoint"], "other"), broker.dealer("backend")
    send(liar, Ready(Id(os.urandom(16)), 1, Name("liar"), other.pid, Name("raw"), 0))
    assert isinstance(receive(liar, TO_WORKER), Welcome)

    other.kill()
    other.wait()
    send(liar, Result(Epoch(b"x" * 8), 1, Id(b"x" * 16), Outcome.OK, recycle=False, payload=b""))

    wait_until(lambda: broker.stats().counters.stale_results > 0)
    assert [(worker.name, worker.pid) for worker in broker.stats().workers] == [("liar", other.pid)]


def test_heartbeat_from_a_socket_of_its_own(broker: Broker) -> None:
    beats, (_, epoch) = broker.dealer("heartbeat_endpoint"), broker.worker()
    me = broker.stats().workers[0]

    send(
        beats, Heartbeat(Id(os.urandom(16)), Name("nobody"), 1, Name("raw"), 0, busy=False, draining=False, rss_bytes=1)
    )
    assert receive(beats, TO_HEARTBEAT) == Who()
    own = os.getpid()
    busy = Heartbeat(Id(os.urandom(16)), Name("busy"), own, Name("raw"), 0, busy=True, draining=False, rss_bytes=77)
    send(beats, busy)
    assert receive(beats, TO_HEARTBEAT) == Pong(epoch)
    introduced = next(worker for worker in broker.stats().workers if worker.name == "busy")
    assert (introduced.pid, introduced.state, introduced.rss_bytes) == (own, "busy", 77)

    fresh = broker.dealer("backend")
    send(fresh, Ready(Id(os.urandom(16)), 1, Name("busy"), own, Name("raw"), 0))
    assert isinstance(receive(fresh, TO_WORKER), Welcome)
    assert sorted(worker.name for worker in broker.stats().workers) == sorted(["busy", me.name])


# --- figures ----------------------------------------------------------------------------------------------------------


def test_stats_for_req_and_dealer_and_client(broker: Broker, context: Context) -> None:
    with context.socket(zmq.REQ) as asking:
        asking.set(zmq.RCVTIMEO, PATIENCE_MS)
        asking.connect(broker.endpoints["stats_endpoint"])
        asking.send(b"anything")
        assert PoolStats.model_validate_json(asking.recv()).broker.pid == broker.process.pid

    dealing = broker.dealer("stats_endpoint")
    for request in ([b""], [b"x"], [b"", b"x"], [b"", b""]):
        dealing.send_multipart(request)
        *delimiter, figures = dealing.recv_multipart()
        assert delimiter == request[:-1]
        assert PoolStats.model_validate_json(figures).broker.pid == broker.process.pid
    dealing.close()

    client = broker.client()
    send(client, AskStats())
    stats = receive(client, TO_CLIENT)
    assert isinstance(stats, Stats)
    assert PoolStats.model_validate_json(stats.payload).clients == 1


@pytest.mark.parametrize("request_frames", [[b"x", b"y"], [b"", b"x", b"y"], [b""] * 3, [b"x"] * 500])
def test_malformed_request_for_stats_is_counted(
    broker: Broker, wait_until: WaitUntil, request_frames: list[bytes]
) -> None:
    before = broker.stats().counters.bad_frames
    asking = broker.dealer("stats_endpoint")

    asking.send_multipart(request_frames)

    wait_until(lambda: broker.stats().counters.bad_frames == before + 1)
    assert asking.poll(0) == 0
    asking.close()


def test_absurd_numbers_of_a_worker_do_not_end_the_broker(broker: Broker) -> None:
    socket = broker.dealer("backend")
    send(socket, Ready(Id(os.urandom(16)), 1, Name("absurd"), 2**53 - 1, Name("raw"), 2**53 - 1))
    receive(socket, TO_WORKER)

    assert broker.stats().workers[0].started_at.year == 9999


# --- foreign and broken messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["endpoint", "backend", "heartbeat_endpoint"])
def test_foreign_version_is_answered_with_who(broker: Broker, setting: str) -> None:
    stranger = broker.dealer(setting)

    stranger.send_multipart([b"\x92\x09\xa5HELLO", b"whatever version 9 has here"])

    assert receive(stranger, TO_HEARTBEAT) == Who()
    stranger.close()


def test_foreign_version_is_logged_once_and_only_so_many_of_them(start: StartBroker) -> None:
    broker = start(**SLOW)
    stranger = broker.dealer()

    for version in [*range(50, 50 + MAX_FOREIGN_VERSIONS + 5)] * 2:
        stranger.send_multipart([b"\x92" + bytes([version]) + b"\xa5HELLO"])
        assert receive(stranger, TO_CLIENT) == Who()

    _, output = broker.end()
    assert output.count('"event":"foreign_version"') == MAX_FOREIGN_VERSIONS


@pytest.mark.parametrize("setting", ["endpoint", "backend", "heartbeat_endpoint"])
def test_garbage_is_counted_and_not_answered(broker: Broker, wait_until: WaitUntil, setting: str) -> None:
    stranger = broker.dealer(setting)
    before = broker.stats().counters.bad_frames

    garbage: list[list[Payload]] = [
        [b""],
        [b"\xc1"],
        [b"GET / HTTP/1.1"],
        [b"", b"", b""],
        [b"\x00" * 900],
        encode(Welcome(Epoch(b"x" * 8), 1, 2000)),
    ]
    for frames in garbage:
        stranger.send_multipart(frames)

    wait_until(lambda: broker.stats().counters.bad_frames == before + len(garbage))
    assert stranger.poll(0) == 0
    stranger.close()


def test_twenty_thousand_random_frames_do_no_harm(broker: Broker, wait_until: WaitUntil) -> None:
    dice = random.Random(4)
    names = ("endpoint", "backend", "heartbeat_endpoint", "stats_endpoint")
    strangers = [broker.dealer(name) for name in names]
    last_words = [Ping(0), Result(Epoch(b"x" * 8), 1, Id(b"x" * 16), Outcome.OK, recycle=False, payload=b""), HEARTBEAT]
    before = broker.stats().counters.bad_frames

    for index in range(20_000):
        word = dice.choice(COMMANDS)
        header = bytes([0x90 | dice.randrange(2, 9), 1, 0xA0 | len(word)]) + word
        frames = [dice.choice([b"", header]) + dice.randbytes(dice.randrange(1, 40))]
        stranger = strangers[index % 4]
        stranger.send_multipart(frames + [dice.randbytes(9)] * dice.randrange(index % 4 == 3, 4))
    for stranger, message in zip(strangers, last_words, strict=False):
        send(stranger, message)
        assert receive(stranger, TO_HEARTBEAT) == Who()
    strangers[3].send(b"?")
    strangers[3].recv()

    wait_until(lambda: broker.stats().counters.bad_frames - before > 19_900)  # a few are of a foreign version
    for stranger in strangers:
        stranger.close()


def test_bytes_that_are_no_zmtp_do_no_harm(broker: Broker) -> None:
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 400, b"", b"\x00" * 64):
        with raw_socket(AF_UNIX, SOCK_STREAM) as stranger:
            stranger.connect(broker.endpoints["endpoint"].removeprefix("ipc://"))
            stranger.sendall(greeting)

    assert isinstance(broker.client(), zmq.Socket)


def test_multipart_without_end_is_one_bad_frame(broker: Broker, wait_until: WaitUntil) -> None:
    stranger = broker.dealer()
    before = broker.stats().counters.bad_frames

    stranger.send_multipart([b""] * 50_000)

    wait_until(lambda: broker.stats().counters.bad_frames == before + 1)
    send(stranger, Ping(0))
    assert receive(stranger, TO_CLIENT) == Who()
    stranger.close()


def test_message_of_very_many_frames_holds_up_its_own_socket_only(start: StartBroker) -> None:
    broker = start(**SLOW)
    client, stranger = broker.client(), broker.dealer("stats_endpoint")
    gaps_s: list[float] = []
    bad_frames = 0

    stranger.send_multipart([b""] * 400_000)
    started_at = time.monotonic()
    while not bad_frames or len(gaps_s) < 10:
        asked_at = time.monotonic()
        send(client, AskStats())
        figures = receive(client, TO_CLIENT)
        gaps_s.append(time.monotonic() - asked_at)
        bad_frames = PoolStats.model_validate_json(figures.payload).counters.bad_frames
    broker.stats()

    assert bad_frames == 1
    assert max(gaps_s) < (time.monotonic() - started_at) / 2, "they were read in one go"


def test_oversized_frame_costs_its_sender_the_connection_only(start: StartBroker, wait_until: WaitUntil) -> None:
    broker = start(**SLOW, payload_limit=2**20)
    greedy, other = broker.client(), broker.client()

    send(greedy, submit(bytes(2**20 + 2_000)))

    def is_heard() -> bool:
        send(greedy, Ping(0))
        return bool(greedy.poll(50))

    wait_until(is_heard)
    assert receive(greedy, TO_CLIENT) == Who()  # libzmq connected again by itself: a new peer, without a session
    send(other, Ping(0))
    assert isinstance(receive(other, TO_CLIENT), Pong)


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_flood_of_one_client_starves_neither_others_nor_the_watch(start: StartBroker) -> None:
    broker = start(**SLOW)
    client, victim = broker.client(), broker.worker_process("victim")
    send(client, submit())
    assert victim.stdout
    victim.stdout.readline()
    worker, _ = broker.worker()
    broker.child("flood.py", broker.endpoints["endpoint"])

    started_at = time.monotonic()
    for _ in range(20):
        send(client, Ping(0))
        assert isinstance(receive(client, TO_CLIENT), Pong)
    answered_at = time.monotonic()
    victim.kill()
    assert receive(worker, TO_WORKER).attempt == 2

    assert answered_at - started_at < 5.0
    assert time.monotonic() - answered_at < 5.0


def test_client_that_does_not_read_blocks_nobody(start: StartBroker, context: Context, wait_until: WaitUntil) -> None:
    broker = start(**SLOW)
    client, (worker, _) = broker.client(), broker.worker()
    deaf = context.socket(zmq.DEALER)
    deaf.set(zmq.LINGER, 0)
    deaf.set(zmq.RCVHWM, 1)
    deaf.connect(broker.endpoints["endpoint"])
    send(deaf, Hello(Id(b"deaf" * 4), 1, os.getpid(), 0))

    for _ in range(3_000):
        send(deaf, AskStats())
    send(deaf, Ping(0))
    wait_until(lambda: broker.stats().counters.dropped == 1, timeout=20)
    deaf.close()
    send(client, submit())
    send(worker, done(receive(worker, TO_WORKER)))

    assert receive(client, TO_CLIENT).outcome is Outcome.OK


def test_full_backlog_is_answered(start: StartBroker) -> None:
    broker = start(**SLOW, backlog_limit=1)
    client = broker.client()
    first, second = submit(), submit()

    send(client, first)
    send(client, second)

    assert receive(client, TO_CLIENT) == Reject(second.task_id, 1, 1, in_bytes=False)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_broker_that_was_frozen_judges_nobody(start: StartBroker) -> None:
    (port,) = _free_ports(1)  # over tcp this process is no local worker: it is not probed, and not killed
    broker = start(liveness=3, heartbeat_interval=0.25, backend=f"tcp://127.0.0.1:{port}")
    client, (worker, _) = broker.client(), broker.worker()
    send(client, submit(run_timeout_ms=2_900))
    task = receive(worker, TO_WORKER)

    os.kill(broker.process.pid, signal.SIGSTOP)
    time.sleep(3.3)  # the test needs a real pause
    send(worker, done(task))
    os.kill(broker.process.pid, signal.SIGCONT)

    assert ended(receive(client, TO_CLIENT)) == (task.task_id, Outcome.OK, 1, b"done")
    stats = broker.stats()
    assert (stats.clients, stats.total_workers, stats.counters.worker_crashes) == (1, 1, 0)


def test_client_that_fell_silent_is_forgotten(start: StartBroker, wait_until: WaitUntil) -> None:
    broker = start(liveness=1.5, heartbeat_interval=0.1)
    client = broker.client()
    send(client, submit())

    wait_until(lambda: broker.stats().counters.abandoned == 1)
    assert broker.stats().clients == 0


# --- the process ------------------------------------------------------------------------------------------------------


def test_sigterm_lets_the_task_in_flight_end_and_says_goodbye(start: StartBroker) -> None:
    broker = start(**SLOW)
    client, (worker, _) = broker.client(), broker.worker()
    send(client, submit())
    send(client, submit())
    task = receive(worker, TO_WORKER)

    broker.process.terminate()
    broker.stats()  # the answer comes after the signal was handled
    send(worker, done(task))

    assert receive(client, TO_CLIENT).task_id == task.task_id
    assert receive(client, TO_CLIENT) == Bye()
    assert broker.process.wait(timeout=5) == 0
    assert worker.poll(0) == 0  # the second task waits for the next broker


@pytest.mark.system
def test_sigterm_waits_for_a_task_in_flight_for_a_limited_time(start: StartBroker) -> None:
    broker = start(**SLOW)
    client, (worker, _) = broker.client(), broker.worker()
    send(client, submit())
    receive(worker, TO_WORKER)

    broker.process.terminate()
    broker.stats()  # answered after the signal was handled
    code, output = broker.end(signal.SIGINT)

    assert code == 0
    assert '"event":"broker_stopped"' in output
    assert output.count('"event":"broker_draining"') == 1, "a second signal does not begin the drain again"
    assert receive(client, TO_CLIENT) == Bye()


def test_second_broker_of_a_directory_leaves_and_names_the_first(start: StartBroker) -> None:
    first = start(**SLOW)
    client = first.client()

    second = Broker.start(first.dir)
    output, _ = second.communicate(timeout=10)

    assert second.returncode == 75
    assert f"pid {first.process.pid}" in output
    send(client, Ping(0))
    assert isinstance(receive(client, TO_CLIENT), Pong)


def test_broker_takes_over_from_one_that_was_killed(start: StartBroker) -> None:
    first = start(**SLOW)
    epoch = first.stats().broker.epoch
    first.end(signal.SIGKILL)

    first.process = Broker.start(first.dir, **SLOW)

    assert first.stats().broker.epoch != epoch


@pytest.mark.system
def test_broker_whose_socket_was_removed_ends(start: StartBroker) -> None:
    broker = start(**SLOW)
    broker.stats()
    (broker.dir / "backend.ipc").unlink()

    output, _ = broker.process.communicate(timeout=20)

    assert broker.process.returncode == 1
    assert "backend.ipc was removed or replaced" in output


def test_bad_settings_end_the_broker_with_their_own_code(start: StartBroker) -> None:
    broker = start(liveness=-1)

    output, _ = broker.process.communicate(timeout=10)

    assert broker.process.returncode == 78
    assert "RACEPOOL_LIVENESS=-1" in output


def test_tcp_endpoints_serve_as_well(start: StartBroker) -> None:
    ports = {name: f"tcp://127.0.0.1:{port}" for name, port in zip(sockets_in(Path()), _free_ports(4), strict=True)}
    broker = start(**SLOW, **ports)
    client, (worker, _) = broker.client(), broker.worker()

    send(client, submit())
    send(worker, done(receive(worker, TO_WORKER)))

    assert receive(client, TO_CLIENT).outcome is Outcome.OK


def test_address_in_use_ends_the_broker(start: StartBroker) -> None:
    with raw_socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        broker = start(endpoint=f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        output, _ = broker.process.communicate(timeout=10)

    assert broker.process.returncode == 1
    assert "in use" in output


# --- dead tasks -------------------------------------------------------------------------------------------------------


def test_many_dead_tasks_leave_a_bounded_number_of_records_and_a_healthy_broker(start: StartBroker) -> None:
    broker = _broker_of_remote_workers(start)
    client = broker.client()
    tasks = [submit(b"poison %d" % number) for number in range(150)]

    for task in tasks:
        send(client, task)
    _kill_in_turn(broker, client, len(tasks))
    counters = broker.stats().counters
    code, _ = broker.end()

    assert (code, counters.crashed) == (0, 150)
    kept = {path.stem for path in (broker.dir / "dead").iterdir()}
    assert len(kept) == dead_tasks.MAX_TASKS
    assert kept <= {task.task_id.hex() for task in tasks}


def test_task_that_is_given_up_right_before_the_end_is_kept(start: StartBroker) -> None:
    broker = _broker_of_remote_workers(start)
    client = broker.client()
    payload = random.randbytes(8 * 2**20)
    order = submit(payload)
    (broker.dir / "dead").mkdir()
    for number in range(1_000):  # to make room takes the broker's thread longer than the end of the broker
        (broker.dir / "dead" / f"{number:032x}.dead").touch()

    send(client, order)
    _kill_in_turn(broker, client, 1)
    code, _ = broker.end()

    assert code == 0
    assert (broker.dir / "dead" / f"{order.task_id.hex()}.dead").read_bytes().endswith(payload)


def test_full_disk_costs_the_record_only(start: StartBroker) -> None:
    broker = _broker_of_remote_workers(start)
    client = broker.client()
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (4_096, 4_096))
    large, small = submit(bytes(100_000)), submit(b"small")

    send(client, large)
    send(client, small)
    _kill_in_turn(broker, client, 2)
    code, output = broker.end()

    assert code == 0
    assert [path.name for path in (broker.dir / "dead").iterdir()] == [f"{small.task_id.hex()}.dead"]
    assert '"event":"quarantine_failed"' in output
    assert "File too large" in output


# --- shared memory ----------------------------------------------------------------------------------------------------


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment()
    yield made
    made.close()


def shared_task(segment: Segment, parcel: Parcel) -> Submit:
    task_id = Id(os.urandom(16))
    reference = segment.reference(task_id, parcel)
    assert reference
    return Submit(task_id, 60_000, 0, again=False, is_shared=True, payload=reference.packed())


def client_that_shares(broker: Broker, segment: Segment) -> Socket:
    socket = broker.dealer()
    send(socket, Hello(Id(os.urandom(16)), 1, os.getpid(), 0, *segment.name))
    assert receive(socket, TO_CLIENT).can_share
    return socket


def test_remote_worker_gets_the_payload_itself_and_the_broker_unmaps_the_segment(
    start: StartBroker, segment: Segment, wait_until: WaitUntil
) -> None:
    broker = _broker_of_remote_workers(start)
    client, parcel = client_that_shares(broker, segment), Parcel(b"head", random.randbytes(100_000))
    order = shared_task(segment, parcel)
    maps = Path(f"/proc/{broker.process.pid}/maps")
    worker, _ = broker.worker()

    send(client, order)
    task = receive(worker, TO_WORKER)

    assert (task.is_shared, task.payload) == (False, parcel.payload())
    assert "memfd:racepool" in maps.read_text()
    wait_until(lambda: "memfd:racepool" not in maps.read_text())


def test_shared_task_that_cannot_be_read_is_answered(start: StartBroker, segment: Segment) -> None:
    broker = _broker_of_remote_workers(start)
    client, order = client_that_shares(broker, segment), shared_task(segment, Parcel(b"head", bytes(100_000)))
    segment.free(order.task_id)
    broker.worker()

    send(client, order)

    assert receive(client, TO_CLIENT).outcome is Outcome.RAISED


def test_dead_task_is_kept_with_its_payload_from_shared_memory(start: StartBroker, segment: Segment) -> None:
    broker = _broker_of_remote_workers(start)
    client, parcel = client_that_shares(broker, segment), Parcel(b"head", random.randbytes(100_000))
    order = shared_task(segment, parcel)

    send(client, order)
    _kill_in_turn(broker, client, 1)
    broker.end()

    assert (broker.dir / "dead" / f"{order.task_id.hex()}.dead").read_bytes().endswith(parcel.payload())


def _broker_of_remote_workers(start: StartBroker) -> Broker:
    """Over tcp, where a new worker replaces the one of the same name. The first death makes a task a dead task."""
    (port,) = _free_ports(1)
    return start(**SLOW, max_attempts=1, backend=f"tcp://127.0.0.1:{port}")


def _kill_in_turn(broker: Broker, client: Socket, count: int) -> None:
    """Lets this many tasks cost a worker each: the next worker replaces the one that has the task."""
    for number in range(1, count + 2):
        worker = broker.dealer("backend")
        send(worker, Ready(Id(os.urandom(16)), 1, Name("worker"), number, Name("raw"), number))
        assert isinstance(receive(worker, TO_WORKER), Welcome)
        if number > 1:
            assert receive(client, TO_CLIENT).outcome is Outcome.CRASHED
        if number <= count:
            assert isinstance(receive(worker, TO_WORKER), Assign)


def _free_ports(count: int) -> list[int]:
    sockets = [raw_socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
