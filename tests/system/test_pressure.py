"""Memory, descriptors or disks run out, or there are very many tasks: memory stays bounded, no result is lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
import zmq

from racepool.client.window import WINDOW_UNITS
from racepool.protocol.frames import TO_CLIENT, decode, encode
from racepool.protocol.messages import Hello, Id, Submit, Welcome
from racepool.protocol.sockets import Context, dealer
from racepool.protocol.stats import PoolStats
from racepool.races.payloads import pack_request
from tests.fuzzing.load import race as race_with_digest
from tests.fuzzing.zmtp import MORE, RawPeer, frame
from tests.profiles import is_long
from tests.running import ROOT, Race, Running, StartClient, StartPool, WaitUntil

pytestmark = pytest.mark.system

MIB = 2**20
MEMORY_LIMIT = 160 * MIB
FEW_FILES = 256
MANY_TASKS = 100_000 if is_long() else 10_000
RAW_TASK_BYTES = 2_000  # the broker's memory for each task in its backlog, at most
CLIENT_TASK_BYTES = 6_000  # the client's memory for each unresolved task, at most
LOG_BYTES = 20_000


@pytest.fixture(scope="module")
def fragile(start_pool: StartPool) -> Running:
    """A pool whose broker has a low memory limit."""
    return start_pool(
        transform="transforms:scripted", broker_memory_limit=MEMORY_LIMIT, backlog_bytes=MEMORY_LIMIT // 2
    )


@pytest.fixture(scope="module")
def quiet(start_pool: StartPool) -> Running:
    """A pool that logs little, because logs would disturb the measurement."""
    return start_pool(transform="transforms:scripted", log_level="error", liveness=5)


# --- resources that run out -------------------------------------------------------------------------------------------


def test_peer_that_sends_without_end_is_got_rid_of_and_nobody_elses_task_is(
    fragile: Running, race: Race, wait_until: WaitUntil
) -> None:
    before = fragile.stats().broker
    futures = [fragile.exec(race("sleep:0.05", f"race-{index}")) for index in range(150)]

    with RawPeer(f"ipc://{fragile.dir}/frontend.ipc", patience_s=15) as endless:
        assert endless.shake_hands()
        part = frame(bytes(MIB), MORE)
        sent = 0
        while endless.send(part):
            sent += 1
            time.sleep(0.005)  # so that the broker is there, too
            assert sent < 20 * MEMORY_LIMIT // MIB, "the broker takes it without end"

    assert [future.result(30)["id"] for future in futures] == [f"race-{index}" for index in range(150)]
    wait_until(fragile.is_at_rest, 15)
    assert fragile.stats().broker.epoch != before.epoch
    assert fragile.stats().broker.rss_bytes < MEMORY_LIMIT / 2
    told = fragile.logged("broker_failed")
    assert f"RACEPOOL_BROKER_MEMORY_LIMIT is {MEMORY_LIMIT}" in told["reason"]


def test_broker_without_a_free_descriptor_is_replaced_and_every_task_resolves(
    fragile: Running, race: Race, wait_until: WaitUntil
) -> None:
    resource.prlimit(fragile.supervisord_pid, resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
    os.kill(fragile.stats().broker.pid, signal.SIGKILL)
    before = fragile.stats().broker
    futures = [fragile.exec(race("sleep:0.02", f"race-{index}")) for index in range(200)]

    with ExitStack() as crowd:
        for _ in range(2 * FEW_FILES):
            crowd.enter_context(RawPeer(f"ipc://{fragile.dir}/frontend.ipc"))
        wait_until(lambda: not Path(f"/proc/{before.pid}").exists())
    results = [future.result(30)["id"] for future in futures]

    assert results == [f"race-{index}" for index in range(200)]
    assert fragile.stats().broker.epoch != before.epoch
    assert fragile.logged("file_limit_low")["file_limit"] == FEW_FILES


def test_crowd_of_connections_below_the_limit_harms_nobody(quiet: Running, race: Race, wait_until: WaitUntil) -> None:
    before = quiet.stats().broker
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(5_000, hard // 3)
    try:
        with ExitStack() as crowd:
            for _ in range(count):
                crowd.enter_context(RawPeer(f"ipc://{quiet.dir}/frontend.ipc")).offer_hand()
            assert quiet.exec(race("echo", "in the crowd")).result(10)["id"] == "in the crowd"
            wait_until(lambda: _descriptors(before.pid) > count)
        wait_until(lambda: _descriptors(before.pid) < 100, 15)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert quiet.stats().broker.epoch == before.epoch


def test_disk_without_room_for_logs_costs_log_lines_only(start_pool: StartPool, race: Race) -> None:
    running = start_pool(transform="transforms:scripted")
    resource.prlimit(running.supervisord_pid, resource.RLIMIT_FSIZE, (LOG_BYTES, LOG_BYTES))  # its own output, too

    first = [running.exec(race("echo", f"race-{index}")).result(10)["id"] for index in range(1_000)]
    victim = running.stats().workers[0].pid
    os.kill(victim, signal.SIGKILL)
    os.kill(running.stats().broker.pid, signal.SIGKILL)
    second = [running.exec(race("echo", f"race-{index}")).result(20)["id"] for index in range(200)]
    running.pool.wait_for_workers(timeout_s=10)

    assert first[:200] == second == [f"race-{index}" for index in range(200)]
    assert victim not in running.pids().values()
    sizes = [path.stat().st_size for path in (running.dir / "log").glob("*.log")]
    assert max(sizes) == LOG_BYTES


# --- very many tasks --------------------------------------------------------------------------------------------------


def test_very_many_tasks_of_two_clients_resolve_in_bounded_memory(quiet: Running) -> None:
    before = quiet.stats()
    command = [sys.executable, str(Path(__file__).with_name("crowded_client.py")), f"ipc://{quiet.dir}/frontend.ipc"]
    env = quiet.env | {"PYTHONPATH": str(ROOT)}
    peak, depth = 0, 0
    with ExitStack() as started:
        clients = [
            started.enter_context(
                subprocess.Popen([*command, str(MANY_TASKS // 2)], env=env, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        while any(client.poll() is None for client in clients):
            stats = quiet.stats()
            peak, depth = max(peak, stats.broker.rss_bytes), max(depth, stats.queue_depth)
            time.sleep(0.2)  # once in a while
        said = [json.loads(client.communicate()[0]) for client in clients]

    for right, at_first, crowded in said:
        assert right == MANY_TASKS // 2
        assert crowded - at_first < CLIENT_TASK_BYTES * MANY_TASKS // 2
    assert depth > MANY_TASKS / 4  # they waited, most of them in their clients
    assert peak - before.broker.rss_bytes < 20 * MIB
    assert quiet.stats().counters.completed - before.counters.completed == MANY_TASKS


def test_backlog_of_very_many_tasks_is_bounded_and_leaves_no_more_the_second_time(
    quiet: Running, race: Race, gate: Path, wait_until: WaitUntil
) -> None:
    blocking = [quiet.exec(race(f"wait-for:{gate}", f"blocking-{index}")) for index in range(3)]
    wait_until(lambda: quiet.stats().in_flight == 3)
    before = quiet.stats()
    left = []
    for _ in range(2):
        full = _filled(quiet, wait_until)
        assert full.broker.rss_bytes - before.broker.rss_bytes < RAW_TASK_BYTES * MANY_TASKS
        wait_until(lambda: quiet.stats().queue_depth == 0, 10)  # because the broker forgot its client
        left.append(quiet.stats().broker.rss_bytes)
    gate.touch()

    wait_until(
        lambda: quiet.stats().broker.rss_bytes - left[0] < 400 * MANY_TASKS
    )  # a task that is kept has more than 500 bytes
    assert [future.result(10)["id"] for future in blocking] == [f"blocking-{index}" for index in range(3)]
    submitted, accounted = quiet.books()
    assert submitted == accounted
    assert quiet.stats().counters.abandoned - before.counters.abandoned == 2 * MANY_TASKS


def _filled(running: Running, wait_until: WaitUntil) -> PoolStats:
    """Submits all at once by a raw client without a window, which sends nothing more.

    It stays until the broker has everything: libzmq drops the last few kB of a peer that leaves while more than
    RCVHWM messages wait.
    """
    context: Context = zmq.Context()
    payload = pack_request(race_with_digest("raw"), polled_at=datetime.now(UTC), previous=None).payload()
    with dealer(context, f"ipc://{running.dir}/frontend.ipc") as socket:
        socket.send_multipart(encode(Hello(Id(os.urandom(16)), 1, os.getpid(), 0)))
        assert isinstance(decode(socket.recv_multipart(), TO_CLIENT), Welcome)
        for _ in range(MANY_TASKS):
            socket.send_multipart(
                encode(Submit(Id(os.urandom(16)), 30_000, 0, again=False, is_shared=False, payload=payload))
            )
        wait_until(lambda: running.stats().queue_depth == MANY_TASKS, 30)
        full = running.stats()
    context.term()
    return full


def test_ten_thousand_tasks_leave_every_programs_memory_as_it_was(quiet: Running) -> None:
    pool = quiet.pool

    def run(count: int) -> None:
        assert sum(1 for _ in pool.map(race_with_digest(f"race-{index}") for index in range(count))) == count

    run(2_000)  # memory that stays after the first ones is no leak
    before = _memory(quiet)
    run(10_000)
    after = _memory(quiet)

    assert before.keys() == after.keys()
    assert {name: grown for name in before if (grown := after[name] - before[name]) > 8 * MIB} == {}


# --- a flood beside others --------------------------------------------------------------------------------------------


def test_what_others_wait_beside_a_flood_is_its_window(
    quiet: Running, race: Race, start_client: StartClient, wait_until: WaitUntil
) -> None:
    task_s, count = 0.003, 3_000
    alone = [_latency_s(quiet, race("echo")) for _ in range(50)]
    flood = start_client(quiet, [race(f"sleep:{task_s}", f"flood-{index}") for index in range(count)])
    wait_until(lambda: quiet.stats().held_by_clients > count / 2)

    beside = []
    while quiet.stats().held_by_clients > 0:
        beside.append(_latency_s(quiet, race("echo")))
    output, _ = flood.communicate(timeout=60)

    assert json.loads(output) == [f"flood-{index}" for index in range(count)]
    assert len(beside) > 5
    window_s = WINDOW_UNITS * task_s / 3
    assert quantiles(beside, n=4)[1] < 4 * window_s  # in order of arrival: the flood's tasks come first
    assert quantiles(alone, n=4)[1] < window_s / 4


def _memory(running: Running) -> dict[str, int]:
    stats = running.stats()
    pids = {worker.name: worker.pid for worker in stats.workers} | {"broker": stats.broker.pid, "client": os.getpid()}
    pids["supervisord"] = running.supervisord_pid
    pages = {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for name, pid in pids.items()}
    return {name: count * resource.getpagesize() for name, count in pages.items()}


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _latency_s(running: Running, race: dict[str, Any]) -> float:
    submitted_at = time.monotonic()
    running.exec(race).result(30)
    return time.monotonic() - submitted_at
