"""`racepool up` where something stands in its way, and in a terminal that is closed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import RACEPOOL, WaitUntil, environment, racepool

pytestmark = pytest.mark.system


@contextmanager
def up(env: dict[str, str], *before: str) -> Iterator["subprocess.Popen[str]"]:
    """`racepool up` with one worker, in a process session of its own."""
    command = [*before, str(RACEPOOL), "up", "--workers", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def test_of_two_that_start_together_one_runs_and_the_other_says_so(run_dir: Path, wait_until: WaitUntil) -> None:
    env = environment(run_dir)
    with up(env) as one, up(env) as other:
        wait_until(lambda: (one.poll(), other.poll()) != (None, None), 20)
        loser, winner = (one, other) if one.poll() is not None else (other, one)
        _, said = loser.communicate(timeout=20)
        assert (loser.returncode, said.count("\n")) == (75, 1)
        assert said.startswith("racepool: another ")
        assert racepool("wait", "--timeout", 20, env=env).returncode == 0
        pids = [int(pid) for pid in Path(f"/proc/{winner.pid}/task/{winner.pid}/children").read_text().split()]
        assert len(pids) == 3

        os.killpg(winner.pid, signal.SIGHUP)  # as the kernel does when a terminal is closed
        assert winner.wait(20) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_worker_that_cannot_import_its_transform_ends_it_with_the_reason_once(run_dir: Path) -> None:
    started_at = time.monotonic()
    done = racepool("up", "--workers", 2, env=environment(run_dir, transform="no_such_module:f"))

    assert done.returncode == 78
    assert time.monotonic() - started_at < 30
    (line,) = done.stderr.splitlines()
    assert line.startswith("racepool: RACEPOOL_TRANSFORM=no_such_module:f: No module named 'no_such_module'")
    assert "no_such_module" not in done.stdout


@pytest.mark.parametrize(
    ("limit", "words"), [("ulimit -f 0", "File too large"), ("ulimit -n 60", "number of file descriptors")]
)
def test_file_that_cannot_be_written_is_one_line(run_dir: Path, limit: str, words: str) -> None:
    command = ["sh", "-c", f'{limit}; exec "$0" up --workers 1', str(RACEPOOL)]
    done = subprocess.run(command, env=environment(run_dir), capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode in (1, 78)
    (line,) = done.stderr.splitlines()
    assert words in line
    assert line.startswith("racepool: ")


def test_control_character_in_the_run_directory_is_one_line(run_dir: Path) -> None:
    done = racepool("up", env=environment(run_dir / "a\r[program:x]"))

    assert done.returncode == 78
    assert "control character" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_full_disk_is_one_line(run_dir: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "tmpfs", str(run_dir)],  # noqa: S607
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        (run_dir / "full").write_bytes(b"x" * 4096)
        done = racepool("up", env=environment(run_dir))
    finally:
        subprocess.run(["umount", str(run_dir)], check=True)  # noqa: S607

    assert done.returncode == 78
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
