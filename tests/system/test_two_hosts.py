"""Two hosts, as two network namespaces with a cable: the pool survives what a network does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from racepool.protocol.endpoints import SOCKETS
from racepool.protocol.exits import Exit
from racepool.protocol.keys import BROKER
from racepool.protocol.stats import PoolStats
from tests.running import RACEPOOL, ROOT, WaitUntil, environment

IP = shutil.which("ip") or ""
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not IP or os.getuid() != 0,
        reason="two hosts need root and `ip` (iproute2), for network namespaces",
    ),
]
NEAR, FAR = "10.213.7.1", "10.213.7.2"
ENDPOINTS = {setting: f"tcp://{NEAR}:{7000 + index}" for index, setting in enumerate(SOCKETS)}
CUT_S = 4.0  # twice the liveness
STEADY_S = 9.0
PLAIN_PEER = """
import sys, zmq
context = zmq.Context()
context.linger = 0
for endpoint in sys.argv[1:]:
    socket = context.socket(zmq.DEALER)
    socket.connect(endpoint)
    try:
        socket.send(b"?", zmq.NOBLOCK)
    except zmq.Again:
        continue  # refused before it could say a word
    assert not socket.poll(1000), "a peer without a key was answered"
context.destroy(linger=0)
"""


def ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True, timeout=10)


@dataclass
class Host:
    """A network namespace, and a run and a key directory of its own."""

    namespace: str
    dir: Path
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def keys(self) -> Path:
        return self.dir / "keys"

    def start(self, *command: object, **settings: object) -> "subprocess.Popen[str]":
        env = environment(self.dir / "run", **({"keys": self.keys} | ENDPOINTS | settings))
        prefix = [IP, "netns", "exec", self.namespace]
        child = subprocess.Popen(
            prefix + [str(word) for word in command], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.started.append(child)
        return child

    def run(self, *command: object, **settings: object) -> tuple[int, str]:
        """Runs a command on this host; returns its exit code and its whole output."""
        child = self.start(*command, **settings)
        out, err = child.communicate(timeout=60)
        return child.returncode, out + err

    def typed(self, *arguments: object) -> str:
        code, said = self.run(RACEPOOL, *arguments)
        assert code == 0, said
        return said

    def stats(self) -> PoolStats:
        code, said = self.run(RACEPOOL, "stats", "--json")
        while code == Exit.NO_BROKER:  # a busy machine may delay it by the second that the command waits
            code, said = self.run(RACEPOOL, "stats", "--json")
        return PoolStats.model_validate_json(said)

    def end(self) -> None:
        for child in self.started:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in self.started:
            try:
                child.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """The broker's host and another one; both are removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
    near, far = (Host(f"rp{os.getpid()}-{name}", folder / name) for name in ("near", "far"))
    try:
        for host in (near, far):
            ip("netns", "add", host.namespace)
            ip("-n", host.namespace, "link", "set", "lo", "up")
        cable = ["type", "veth", "peer", "name", "cable", "netns", far.namespace]
        ip("link", "add", "cable", "netns", near.namespace, *cable)
        for host, address in ((near, NEAR), (far, FAR)):
            ip("-n", host.namespace, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", host.namespace, "link", "set", "cable", "up")
        yield near, far
    finally:
        for host in (far, near):
            host.end()
            subprocess.run([IP, "netns", "delete", host.namespace], check=False, capture_output=True, timeout=10)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pool(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    """Broker and two workers on one host, set up by docs/security.md; the keys of the other host are allowed."""
    near, far = hosts
    near.typed("keygen")
    far.typed("keygen", "client", "worker")
    shutil.copy(near.keys / f"{BROKER}.key", far.keys)
    for role in ("client", "worker"):
        near.typed("keys", "allow", far.keys / f"{role}.key", "--as", "far", "--role", role)
    near.start(RACEPOOL, "up", transform="transforms:scripted", workers=2)
    near.typed("wait")
    return near, far


def lost(stats: PoolStats) -> list[tuple[str | None, str | None]]:
    return [(event.worker, event.reason) for event in stats.recent_events if event.event == "worker_lost"]


def test_client_of_another_host_needs_its_key(pool: tuple[Host, Host]) -> None:
    near, far = pool
    other = Host(far.namespace, far.dir.with_name("other"))
    other.typed("keygen", "client")
    shutil.copy(near.keys / f"{BROKER}.key", other.keys)

    sample = ROOT / "samples" / "harness.json"
    assert far.run(RACEPOOL, "ping")[0] == 0
    assert "starting a local pool" not in far.typed("transform", sample, "--format", "ndjson")
    wrong, said = other.run(RACEPOOL, "ping")
    assert (wrong, "is our key in its list" in said) == (69, True)
    none, said = far.run(RACEPOOL, "ping", keys="")
    assert (none, "`racepool keygen` and set RACEPOOL_KEYS" in said) == (78, True)
    assert far.run(sys.executable, "-c", PLAIN_PEER, *ENDPOINTS.values()) == (0, "")


def test_a_cut_cable_costs_no_result(pool: tuple[Host, Host], wait_until: WaitUntil) -> None:
    near, far = pool
    far.start(RACEPOOL, "worker", name="far", transform="transforms:scripted")
    wait_until(lambda: near.stats().total_workers == 3, 20)
    client = far.start(sys.executable, Path(__file__).with_name("steady_client.py"), STEADY_S, 0.02)
    assert client.stdout
    assert client.stdout.readline() == "started\n"

    ip("-n", near.namespace, "link", "set", "cable", "down")
    cut_at = time.monotonic()
    wait_until(lambda: near.stats().clients == 0)
    wait_until(lambda: ("far", "silence") in lost(near.stats()))
    wait_until(lambda: time.monotonic() > cut_at + CUT_S, CUT_S + 1)
    ip("-n", near.namespace, "link", "set", "cable", "up")

    out, err = client.communicate(timeout=60)
    report: dict[str, Any] = json.loads(out)
    assert re.fullmatch(r"(no broker answers at tcp://.*\n)?", err)  # told once, if a task waited
    assert report["submitted"] > 100
    assert report["ends"] == {"right": report["submitted"]}
    wait_until(lambda: near.stats().total_workers == 3, 20)
    stats = near.stats()
    assert [worker.tasks_completed > 0 for worker in stats.workers] == [True] * 3
    counters = stats.counters
    ended = counters.completed + counters.cancelled + counters.abandoned + counters.timed_out + counters.failed
    assert (counters.submitted, stats.in_flight, stats.queue_depth) == (ended + counters.crashed, 0, 0)
