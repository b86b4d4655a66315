"""The supervisord that `racepool up` runs, with a test's own program: what it must do at once, and what it must not."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.running import ROOT, WaitUntil

pytestmark = pytest.mark.system
CONFIGURATION = """
[supervisord]
nodaemon=true
logfile={directory}/log
pidfile={directory}/pid
[program:program]
command={command}
autorestart=true
startsecs=0
stopasgroup=true
startretries=1000000
stdout_logfile=NONE
stderr_logfile=NONE
"""
SOON_S = 0.6  # its loop alone takes a second
LIVES = 3  # the quickest counts, because the machine may be busy


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def supervised(directory: Path, command: str) -> Iterator["subprocess.Popen[bytes]"]:
    (directory / "log").unlink(missing_ok=True)
    configuration = directory / "supervisord.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, command=command))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "racepool.supervision.supervisord", "--configuration", str(configuration)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in pids(directory):
            os.kill(pid, signal.SIGKILL)


def logged(directory: Path, words: str) -> list[float]:
    """The instants of the log lines that contain these words, in seconds since 1970."""
    path = directory / "log"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [line.partition(" INFO ")[0] for line in lines if words in line and line.endswith("\n")]
    return [datetime.strptime(each, "%Y-%m-%d %H:%M:%S,%f").timestamp() for each in found]  # noqa: DTZ007  # local time


def pids(directory: Path) -> list[int]:
    """The program's processes that still exist."""
    told = re.findall(r"spawned: '.+' with pid (\d+)", (directory / "log").read_text())
    return [int(pid) for pid in told if Path(f"/proc/{pid}").exists()]


def test_it_starts_and_ends_without_waiting_for_the_next_second(directory: Path, wait_until: WaitUntil) -> None:
    starts_s, ends_s = [], []
    for _ in range(LIVES):
        with supervised(directory, "sleep 60") as process:
            wait_until(lambda: logged(directory, "entered RUNNING"), 20)  # then it would sleep
            starts_s.append(logged(directory, "spawned")[0] - logged(directory, "supervisord started")[0])
            told_at = time.time()
            process.terminate()
            assert process.wait(20) == 0
            ends_s.append(time.time() - told_at)
            assert pids(directory) == []

    assert min(starts_s) < SOON_S, starts_s
    assert min(ends_s) < SOON_S, ends_s


def test_program_that_ends_at_once_does_not_spin(directory: Path, wait_until: WaitUntil) -> None:
    with supervised(directory, "false"):
        wait_until(lambda: len(logged(directory, "spawned")) >= 3, 20)
        first, _, third = logged(directory, "spawned")[:3]

    assert third - first > 1.5


def test_reload_begins_anew(directory: Path, wait_until: WaitUntil) -> None:
    with supervised(directory, "sleep 60") as process:
        wait_until(lambda: len(logged(directory, "spawned")) == 1, 20)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(logged(directory, "spawned")) == 2, 20)
        process.terminate()
        assert process.wait(20) == 0
        assert pids(directory) == []


def test_end_reaches_a_program_that_has_only_just_begun(directory: Path, wait_until: WaitUntil) -> None:
    """Between fork and exec it has supervisord's signal handlers, which only set a flag."""
    for _ in range(2 * LIVES):
        with supervised(directory, "sleep 60\nnumprocs=8\nprocess_name=%(process_num)d") as process:
            wait_until(lambda: logged(directory, "spawned"), 20)
            process.terminate()
            assert process.wait(8) == 0  # stopwaitsecs is 10


def test_child_can_be_signalled_as_a_group_at_once() -> None:
    code = """
import os, signal
from racepool.supervision.supervisord import fork
pid = fork()
if pid == 0:
    signal.alarm(20)
    while True:
        signal.pause()
os.kill(-pid, signal.SIGTERM)
assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20, cwd=ROOT)


def test_child_ends_with_its_parent_wherever_orphans_go() -> None:
    """Under a subreaper, as `systemd --user` is one, an orphan's parent is not process 1."""
    code = """
import ctypes, os, signal, sys, time
from racepool.supervision.supervisord import fork
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
reader, writer = os.pipe()
parent = os.fork()
if parent == 0:
    child = fork()
    if child == 0:
        os.execv("/bin/sleep", ["sleep", "60"])
    os.write(writer, str(child).encode())
    signal.pause()
told = os.read(reader, 16).decode()
while open(f"/proc/{told}/comm").read().strip() != "sleep":
    time.sleep(0.01)
print(told)
os.kill(parent, signal.SIGKILL)
os.waitpid(parent, 0)
child, status = os.wait()
print(child, os.WTERMSIG(status))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=20, cwd=ROOT, capture_output=True, text=True
    )

    told, reaped = done.stdout.splitlines()
    assert reaped == f"{told} {signal.SIGKILL:d}"


def test_failure_that_may_mend_itself_is_no_wrong_command_line(directory: Path) -> None:
    """supervisord exits with 2 if it cannot open a file; after 2, systemd would not restart it."""
    (directory / "long").mkdir()
    configuration = directory / "supervisord.conf"
    socket = directory / "long" / ("x" * 120)
    configuration.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={directory}/log\n[unix_http_server]\nfile={socket}\n"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-m", "racepool.supervision.supervisord", "--configuration", str(configuration)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False, text=True,
    )  # fmt: skip

    assert (done.returncode, "AF_UNIX path too long" in done.stderr) == (1, True)
