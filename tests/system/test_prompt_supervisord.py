"""The supervisord that `racepool up` runs, with a test's own program: what it must do at once, and what it must not."""

import itertools
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

from racepool.supervision.rpc import SERVER_URL, Supervisor
from tests.running import ROOT, WaitUntil

pytestmark = pytest.mark.system
CONFIGURATION = """
[supervisord]
nodaemon=true
silent=true
logfile={directory}/log
pidfile={directory}/pid
[unix_http_server]
file={directory}/control
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:worker]
autorestart=true
startsecs=0
stopasgroup=true
startretries=1000000
redirect_stderr=true
stdout_logfile={directory}/out-%(process_num)d
command={command}
"""
THREE = "numprocs=3\nprocess_name=worker-%(process_num)d\n"
WHY = "RACEPOOL_TRANSFORM=a:b: no module"
SOON_S = 0.6  # its loop alone takes a second
LIVES = 3  # the quickest counts, because the machine may be busy


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def supervised(directory: Path, command: str, *before: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisord with this program; what it says to its user is in the file `said`."""
    (directory / "log").unlink(missing_ok=True)
    configuration = directory / "supervisord.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, command=command))
    command_line = [*before, sys.executable, "-P", "-m", "racepool.supervision.supervisord", "--configuration"]
    with (directory / "said").open("w") as said:
        process = subprocess.Popen(
            [*command_line, str(configuration)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, cwd=directory,
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


NOISY = """
[program:noisy]
command=sh -c 'while true; do echo; sleep 0.02; done'
stdout_logfile=/dev/null
stdout_logfile_maxbytes=0
stderr_logfile=NONE
"""


def test_program_that_ends_at_once_is_started_once_a_second_whatever_wakes_supervisord(
    directory: Path, wait_until: WaitUntil
) -> None:
    names = ["worker-0", "worker-1", "worker-2"]
    with supervised(directory, f"false\n{THREE}{NOISY}") as process:
        wait_until(lambda: all(len(logged(directory, f"spawned: '{name}'")) >= 3 for name in names), 20)
        starts = {name: logged(directory, f"spawned: '{name}'") for name in names}
        process.terminate()
        assert process.wait(20) == 0

    for each in starts.values():
        assert all(later - earlier > 0.9 for earlier, later in itertools.pairwise(each)), each
    (line,) = (directory / "said").read_text().splitlines()
    assert re.fullmatch(r"racepool: worker-\d ended 0\.\d s after its start \(exit status 1\) .*", line)


def test_worker_that_refuses_a_later_start_does_not_end_the_pool(directory: Path, wait_until: WaitUntil) -> None:
    first_ends = "case $me in worker-0) exit 1;; worker-1) exit 0;; *) kill -9 $$;; esac"
    (directory / "program").write_text(
        f"me=$SUPERVISOR_PROCESS_NAME; test -e $me && echo {WHY} && exit 78; touch $me; {first_ends}"
    )
    with supervised(directory, f"sh {directory}/program\n{THREE}") as process:
        wait_until(lambda: len(logged(directory, "spawned")) >= 7, 20)
        assert process.poll() is None
    assert (directory / "said").read_text().count("racepool: worker-") == 1, "the next line is due after a pause"


def test_worker_that_refuses_its_first_start_ends_the_pool_with_its_reason_and_code(directory: Path) -> None:
    (directory / "program").write_text(f"echo {WHY}; exit 78")
    with supervised(directory, f"sh {directory}/program\n{THREE}") as process:
        assert process.wait(20) == 78
        assert pids(directory) == []

    assert (directory / "said").read_text() == f"racepool: {WHY}\n"


def test_program_that_cannot_be_started_is_told_with_the_reason(directory: Path, wait_until: WaitUntil) -> None:
    with supervised(directory, "/no/such/python"):
        wait_until(lambda: (directory / "said").read_text().endswith("\n"), 20)

    assert (directory / "said").read_text().startswith("racepool: worker cannot be started: can't find command")


def test_reload_begins_anew(directory: Path, wait_until: WaitUntil) -> None:
    with supervised(directory, "sleep 60") as process:
        wait_until(lambda: len(logged(directory, "spawned")) == 1, 20)
        Supervisor({SERVER_URL: f"unix://{directory}/control"})._ask("restart")
        wait_until(lambda: len(logged(directory, "spawned")) == 2, 20)
        process.terminate()
        assert process.wait(20) == 0
        assert pids(directory) == []


def test_closed_terminal_ends_it_with_all_programs(directory: Path, wait_until: WaitUntil) -> None:
    with supervised(directory, "sleep 60") as process:
        wait_until(lambda: logged(directory, "spawned"), 20)
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0
        assert pids(directory) == []


def test_under_nohup_a_closed_terminal_changes_nothing(directory: Path, wait_until: WaitUntil) -> None:
    with supervised(directory, "sleep 60", "nohup") as process:
        wait_until(lambda: logged(directory, "spawned"), 20)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR2)  # is heard after it
        wait_until(lambda: logged(directory, "received SIGUSR2"), 20)
        assert process.poll() is None
        assert len(pids(directory)) == 1
    assert (directory / "log").read_text().count("received SIG") == 1


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
