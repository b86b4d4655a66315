"""A worker that cannot start tells its broker why, and everybody who waits for a worker hears it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from racepool import BrokerUnavailableError, TaskTimeoutError, ZmqPool
from racepool.protocol.sockets import Context, dealer, receive, send
from tests.running import ROOT, Race, environment, racepool

pytestmark = pytest.mark.system
SOON_S = 15.0  # far less than the timeouts
LONG_S = 60
WHY = "worker-0 cannot start: RACEPOOL_TRANSFORM=no_such:f: No module named 'no_such'"


@pytest.fixture(scope="module")
def env(run_dir: Path) -> Iterator[dict[str, str]]:
    """A broker, and a worker that ends, and is started again as a supervisor would do it."""
    env = environment(run_dir, transform="no_such:f", name="worker-0", workers=1, connect_timeout=LONG_S)
    again = "import subprocess, sys\nwhile True: subprocess.run([sys.executable, '-m', 'racepool.worker'])"
    programs = [
        subprocess.Popen(
            [sys.executable, *what], env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for what in (("-m", "racepool.broker"), ("-c", again))
    ]
    yield env
    for program in programs[::-1]:
        program.kill()
        program.wait()


def test_who_waits_for_workers_is_told_at_once(env: dict[str, str], run_dir: Path) -> None:
    began_at = time.monotonic()

    with ZmqPool(f"ipc://{run_dir}/frontend.ipc") as pool, pytest.raises(BrokerUnavailableError, match=WHY):
        pool.wait_for_workers(1, LONG_S)
    waited = racepool("wait", "--timeout", LONG_S, env=env)

    assert time.monotonic() - began_at < SOON_S
    assert (waited.returncode, waited.stdout) == (1, "")
    assert WHY in waited.stderr


def test_task_says_why_no_worker_came(
    env: dict[str, str],  # noqa: ARG001  # its pool
    run_dir: Path,
    race: Race,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ZmqPool(f"ipc://{run_dir}/frontend.ipc") as pool:
        error = pool.exec(race("any"), queue_timeout_s=3).exception(LONG_S)

    assert isinstance(error, TaskTimeoutError)
    assert WHY in str(error)
    assert [record.levelname for record in caplog.records if WHY in record.getMessage()] == ["WARNING"]


def test_task_whose_message_is_none_is_refused(env: dict[str, str], run_dir: Path) -> None:  # noqa: ARG001  # its pool
    context: Context = zmq.Context()
    with dealer(context, f"ipc://{run_dir}/frontend.ipc") as peer:
        send(peer, [msgpack.packb([7, "SUBMIT", b"t" * 16, -1, 0, False, False]), b"payload"])
        assert peer.poll(LONG_S * 1000)
        [answer] = receive(peer) or []

    assert msgpack.unpackb(answer)[1:] == ["REFUSED", b"t" * 16, "SUBMIT: run_timeout_ms breaks its rule"]
    context.term()
