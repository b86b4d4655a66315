"""gevent and eventlet replace threads and locks in the whole process; the pool works all the same."""

import subprocess
import sys

import pytest

from tests.running import ROOT, Running, StartPool

BOUND_S = 40


@pytest.fixture(scope="module")
def pool(start_pool: StartPool) -> Running:
    return start_pool(workers=1)


@pytest.mark.parametrize(
    ("library", "when"),
    [
        ("gevent", "before"),
        ("gevent", "after"),
        ("gevent", "late"),
        ("gevent", "no-threads"),
        ("eventlet", "before"),
        ("eventlet", "late"),
        ("eventlet", "no-threads"),
    ],
)
def test_pool_works_where_threads_are_greenlets(pool: Running, library: str, when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.system.green_client", library, when, pool.dir / "frontend.ipc"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
