import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from racepool.protocol import processes
from racepool.protocol.processes import (
    cpu_ticks,
    death_signal,
    file_limit,
    open_files,
    own_pid,
    process_state,
    resident_bytes,
)
from tests.running import ROOT, WaitUntil


@pytest.fixture
def spinning() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        yield child
        child.kill()


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    return run.stdout.strip()


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()

    with mmap.mmap(-1, 50_000_000) as ballast:  # not a bytearray: the allocator may have free memory
        ballast.write(b"x" * 50_000_000)

        assert resident_bytes() - before > 45_000_000


def test_resident_memory_is_told_without_a_free_descriptor() -> None:
    told = python(
        "import resource; from racepool.protocol.processes import open_files, resident_bytes; resident_bytes();"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096)); print(resident_bytes() > 0, open_files() >= 3)"
    )
    assert told == "True True"


def test_running_process_uses_ticks(spinning: subprocess.Popen[bytes], wait_until: WaitUntil) -> None:
    wait_until(lambda: (cpu_ticks(spinning.pid) or 0) > 3)


def test_process_knows_itself_by_its_pid(spinning: subprocess.Popen[bytes]) -> None:
    assert own_pid(os.getpid()) == os.getpid()
    assert own_pid(spinning.pid) == spinning.pid
    spinning.kill()
    spinning.wait()
    assert own_pid(spinning.pid) is None


@pytest.mark.skipif(os.getuid() != 0, reason="a pid namespace needs root")
def test_process_in_a_container_has_a_pid_of_its_own(wait_until: WaitUntil) -> None:
    with subprocess.Popen(["/usr/bin/env", "unshare", "--pid", "--fork", "sleep", "60"]) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        wait_until(lambda: children.read_text() != "")
        inner = int(children.read_text())
        assert own_pid(inner) == 1
        os.kill(inner, signal.SIGKILL)  # --kill-child would miss a child that has not come to its own set-up yet


def test_stopped_process_has_no_ticks(spinning: subprocess.Popen[bytes], wait_until: WaitUntil) -> None:
    spinning.send_signal(signal.SIGSTOP)

    wait_until(lambda: cpu_ticks(spinning.pid) is None)
    assert process_state(spinning.pid) == "T"
    spinning.send_signal(signal.SIGCONT)
    wait_until(lambda: cpu_ticks(spinning.pid) is not None)


def test_ended_process_has_no_ticks(spinning: subprocess.Popen[bytes], wait_until: WaitUntil) -> None:
    spinning.kill()

    wait_until(lambda: cpu_ticks(spinning.pid) is None)  # a zombie
    assert process_state(spinning.pid) == "Z"
    spinning.wait()
    assert cpu_ticks(spinning.pid) is None
    assert process_state(spinning.pid) == ""


def test_name_of_a_process_does_not_confuse_the_fields() -> None:
    code = (
        "import ctypes, os; ctypes.CDLL(None).prctl(15, b') T 1 2 (', 0, 0, 0);"
        "from racepool.protocol.processes import cpu_ticks; print(cpu_ticks(os.getpid()))"
    )

    assert int(python(code)) >= 0


def test_child_dies_with_its_parent(wait_until: WaitUntil) -> None:
    child = (
        "from racepool.protocol.processes import die_with_parent; die_with_parent();"
        "print('armed', flush=True); import time; time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, os; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run(
        [sys.executable, "-c", parent, child], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
    )

    wait_until(lambda: cpu_ticks(int(run.stdout)) is None)


def test_file_limit_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(soft, 256)
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({low}, {hard}));"
        "from racepool.protocol.processes import raise_file_limit; raise_file_limit();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    assert int(python(code)) == hard


def test_open_files_are_counted() -> None:
    before = open_files()

    reader, writer = os.pipe()

    assert open_files() == before + 2
    os.close(reader)
    os.close(writer)
    assert open_files() == before <= file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_freed_memory_is_given_back() -> None:
    code = (
        "from racepool.protocol.processes import *; ballast = [bytearray(5_000) for _ in range(20_000)];"
        "top = ballast.pop(); del ballast; before = resident_bytes(); trim_memory(); print(before - resident_bytes())"
    )

    assert int(python(code)) > 50_000_000  # bytes that the C library had kept


def test_child_tells_its_own_memory_and_not_its_parents() -> None:
    code = (
        "import os; from racepool.protocol.processes import *; resident_bytes()\n"
        "if os.fork(): os.wait()\n"
        "else: before = resident_bytes(); ballast = b'x' * 50_000_000; print(resident_bytes() - before)"
    )

    assert int(python(code)) >= 50_000_000


def test_descriptors_that_cannot_be_counted_are_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Path", lambda _path: Path("/proc/self/not there"))

    assert open_files() == file_limit()


def test_process_whose_parent_is_another_one_by_now_ends() -> None:
    code = "import os; from racepool.protocol.processes import *; die_with_parent(os.getpid())"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=20).returncode == 1


@pytest.mark.parametrize(("ends_by", "signal_number"), [("kill", 9), ("terminate", 15), ("wait", None)])
def test_signal_that_ended_a_process_is_known_until_it_is_reaped(
    ends_by: str, signal_number: int | None, wait_until: WaitUntil
) -> None:
    code = "pass" if ends_by == "wait" else "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        pidfd = os.pidfd_open(child.pid)
        if ends_by != "wait":
            getattr(child, ends_by)()
        wait_until(lambda: process_state(child.pid) == "Z")

        assert death_signal(pidfd, child.pid) == signal_number
    os.close(pidfd)


def test_signal_of_another_process_that_has_the_pid_by_now_is_not_told(wait_until: WaitUntil) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as first:
        pidfd = os.pidfd_open(first.pid)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as later:
        later.kill()
        wait_until(lambda: process_state(later.pid) == "Z")

        assert death_signal(pidfd, later.pid) is None
    os.close(pidfd)
