import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from racepool.broker.process_watch import ProcessWatch
from racepool.protocol.processes import cpu_ticks, process_state
from tests.broker.building import an_id
from tests.running import WaitUntil

SPIN, SLEEP = "while True: pass", "import time; time.sleep(60)"
WORK_WHEN_TOLD = """
import os, time
while not os.path.exists({!r}): time.sleep(0.01)
end = time.process_time() + 0.3
while time.process_time() < end: pass
time.sleep(60)
"""
DESCRIPTORS = Path("/proc/self/fd")
ONE, TWO = an_id("one"), an_id("two")
Spawn = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    children: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> "subprocess.Popen[bytes]":
        children.append(subprocess.Popen([sys.executable, "-c", f"print(flush=True)\n{code}"], stdout=subprocess.PIPE))
        assert children[-1].stdout
        children[-1].stdout.readline()
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def is_told(watch: ProcessWatch, timeout_s: float = 5.0) -> bool:
    return bool(select.select([watch], [], [], timeout_s)[0])


def test_end_of_a_process_is_told(spawn: Spawn) -> None:
    watch, child, other = ProcessWatch(), spawn(SLEEP), spawn(SLEEP)
    assert watch.watch(ONE, child.pid)
    assert watch.watch(TWO, other.pid)
    assert watch.ended() == []

    child.kill()

    assert is_told(watch)
    assert watch.ended() == [ONE]
    watch.unwatch(ONE)
    assert watch.ended() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_signal_that_ended_a_process_is_told(spawn: Spawn, number: signal.Signals) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    watch.watch(ONE, child.pid)

    child.send_signal(number)

    assert is_told(watch)
    assert watch.death_signals([ONE]) == {ONE: number}


def test_signal_of_a_process_that_was_reaped_is_told_by_newer_kernels(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    watch.watch(ONE, child.pid)
    child.kill()
    child.wait()

    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    assert watch.death_signals([ONE]) == ({ONE: signal.SIGKILL} if (major, minor) >= (6, 15) else {})


@pytest.mark.parametrize("is_reaped", [True, False])
def test_process_that_exits_tells_no_signal(spawn: Spawn, *, is_reaped: bool) -> None:
    watch, child = ProcessWatch(), spawn("raise SystemExit(3)")
    watch.watch(ONE, child.pid)
    assert is_told(watch)
    if is_reaped:
        child.wait()

    assert watch.death_signals([ONE]) == {}


def test_several_ends_are_told_together(spawn: Spawn, wait_until: WaitUntil) -> None:
    watch, children = ProcessWatch(), [spawn(SLEEP), spawn(SLEEP)]
    for session, child in zip((ONE, TWO), children, strict=True):
        watch.watch(session, child.pid)

    for child in children:
        child.kill()

    wait_until(lambda: sorted(watch.ended()) == sorted([ONE, TWO]))


def test_process_that_ended_before_is_not_watched(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn("pass")
    child.wait()

    assert not watch.watch(ONE, child.pid)
    assert watch.ended() == []


def test_end_of_a_process_that_was_not_reaped_is_told_at_once(spawn: Spawn, wait_until: WaitUntil) -> None:
    watch, child = ProcessWatch(), spawn("pass")
    wait_until(lambda: cpu_ticks(child.pid) is None)

    assert watch.watch(ONE, child.pid)
    assert watch.ended() == [ONE]


def test_kill_ends_the_process_and_the_watch(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn(SPIN)
    watch.watch(ONE, child.pid)

    watch.kill(ONE)

    assert child.wait(timeout=5) == -signal.SIGKILL
    assert watch.ended() == []


def test_kill_of_a_process_that_is_gone_or_unknown_does_nothing(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    watch.watch(ONE, child.pid)
    child.kill()
    child.wait()

    watch.kill(ONE)
    watch.kill(TWO)
    watch.unwatch(TWO)


def test_unwatched_process_lives_on(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    watch.watch(ONE, child.pid)

    watch.unwatch(ONE)
    watch.kill(ONE)

    assert child.poll() is None


def test_two_sessions_of_one_process(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    watch.watch(ONE, child.pid)
    watch.watch(TWO, child.pid)
    watch.unwatch(ONE)

    child.kill()

    assert is_told(watch)
    assert watch.ended() == [TWO]


def test_process_that_waits_for_a_cpu_makes_progress(spawn: Spawn) -> None:
    """Asks many times within one clock tick: on a busy machine the process may get no CPU for long."""
    watch, child = ProcessWatch(), spawn(SPIN)
    watch.watch(ONE, child.pid)

    assert all(watch.has_progress(ONE) for _ in range(20))


def test_spinning_process_makes_progress(spawn: Spawn, wait_until: WaitUntil) -> None:
    watch, child = ProcessWatch(), spawn(SPIN)
    watch.watch(ONE, child.pid)

    wait_until(lambda: watch.has_progress(ONE))
    wait_until(lambda: watch.has_progress(ONE))


def test_sleeping_process_makes_no_progress(spawn: Spawn, wait_until: WaitUntil) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    wait_until(lambda: process_state(child.pid) == "S")
    watch.watch(ONE, child.pid)
    watch.has_progress(ONE)

    assert not any(watch.has_progress(ONE) for _ in range(100))


def test_stopped_process_makes_no_progress_after_much_work(spawn: Spawn, wait_until: WaitUntil) -> None:
    watch, child = ProcessWatch(), spawn(SPIN)
    watch.watch(ONE, child.pid)
    before = cpu_ticks(child.pid) or 0
    wait_until(lambda: (cpu_ticks(child.pid) or 0) > before)

    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: cpu_ticks(child.pid) is None)

    assert not watch.has_progress(ONE)


def test_process_makes_no_progress_when_its_work_is_done(spawn: Spawn, wait_until: WaitUntil, tmp_path: Path) -> None:
    watch, child = ProcessWatch(), spawn(WORK_WHEN_TOLD.format(str(tmp_path / "begin")))
    watch.watch(ONE, child.pid)
    before = cpu_ticks(child.pid) or 0
    (tmp_path / "begin").touch()
    wait_until(lambda: (cpu_ticks(child.pid) or 0) > before + 10 and process_state(child.pid) == "S")

    assert watch.has_progress(ONE)
    assert not watch.has_progress(ONE)


def test_unknown_session_makes_no_progress() -> None:
    assert not ProcessWatch().has_progress(ONE)


def test_descriptors_are_closed(spawn: Spawn) -> None:
    watch, child = ProcessWatch(), spawn(SLEEP)
    before = len(list(DESCRIPTORS.iterdir()))

    for end in (watch.unwatch, watch.kill):
        watch.watch(ONE, child.pid)
        end(ONE)

    assert len(list(DESCRIPTORS.iterdir())) == before
