"""What a lab reads: growing and rotated files, logs, records, processes, memory."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from racepool.commands.chaos.lab_processes import Census, LabProcess, died_at, end_all, signalled
from racepool.commands.chaos.memory import SAMPLES_KEPT, MemorySamples
from racepool.commands.chaos.program_logs import ENDED_BY_WATCHDOG, EXITED, SPAWNED, ProgramLogs
from racepool.commands.chaos.records import OK, Record, Resolved, Submitted, digest, from_line, outcome_of, to_line
from racepool.commands.chaos.rubbish import Rubbish
from racepool.commands.chaos.tail import Tail
from racepool.protocol.errors import TaskTimeoutError, TransformError
from racepool.protocol.frames import FROM_CLIENT, FROM_HEARTBEAT, FROM_WORKER, BadFrameError, Inlet, M, decode
from racepool.protocol.messages import Payload, Ready
from tests.commands.chaos.building import line

MIB = 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def tail(path: Path) -> Iterator[Tail]:
    tail = Tail(path)
    yield tail
    tail.close()


def test_whole_lines_come_once_each(path: Path, tail: Tail) -> None:
    assert list(tail.lines()) == []

    path.write_bytes(b"one\ntwo\nthr")
    assert list(tail.lines()) == [b"one", b"two"]

    with path.open("ab") as file:
        file.write(b"ee\n\nfour\n")
    assert list(tail.lines()) == [b"three", b"four"]
    assert list(tail.lines()) == []


def test_rotated_file_is_read_to_its_end_and_then_the_new_one(path: Path, tail: Tail) -> None:
    path.write_bytes(b"one\n")
    assert list(tail.lines()) == [b"one"]

    with path.open("ab") as file:
        file.write(b"two\n")
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"three\n")

    assert list(tail.lines()) == [b"two", b"three"]


def test_file_that_is_gone_for_a_moment_is_found_again(path: Path, tail: Tail) -> None:
    path.write_bytes(b"one\n")
    list(tail.lines())
    path.rename(path.with_suffix(".1"))

    assert list(tail.lines()) == []
    path.write_bytes(b"two\n")
    assert list(tail.lines()) == [b"two"]


def test_instants_of_the_calendar_become_those_of_the_shared_clock() -> None:
    logs = ProgramLogs(1_000.0)
    logs.on_broker_line(line("broker_started", 1_002.5, pid=5))

    (entry,) = logs.of("broker_started")
    assert entry.at == pytest.approx(2.5)
    assert (entry.pid, entry.worker) == (5, "")


def test_supervisord_tells_who_ended_and_who_began() -> None:
    logs = ProgramLogs(0.0)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(100))
    logs.on_supervisord_line(f"{stamp},250 WARN exited: broker (terminated by SIGKILL; not expected)\n".encode())
    logs.on_supervisord_line(f"{stamp},750 INFO spawned: 'worker-1' with pid 42".encode())
    logs.on_supervisord_line(b"Unlinking stale socket")

    (exited,), (spawned,) = logs.of(EXITED), logs.of(SPAWNED)
    assert (exited.at, exited.worker) == (100.25, "broker")
    assert (spawned.at, spawned.worker, spawned.pid) == (100.75, "worker-1", 42)
    assert logs.alarms == []


def test_watchdog_tells_whom_it_killed_and_else_only_its_own_failure_counts() -> None:
    logs = ProgramLogs(0.0)
    logs.on_watchdog_line(line("worker_killed", 5.5, process="worker:worker-1", pid=42))
    logs.on_watchdog_line(line("anything", 6.0))
    assert logs.alarms == []
    logs.on_watchdog_line(b"Traceback (most recent call last):")

    (ended,) = logs.of(ENDED_BY_WATCHDOG)
    assert (ended.at, ended.worker, ended.pid) == (5.5, "worker-1", 42)
    assert logs.alarms == ["watchdog: Traceback (most recent call last):"]


def test_line_that_was_cut_by_a_death_is_no_alarm() -> None:
    logs = ProgramLogs(0.0)
    logs.on_broker_line(line("worker_lost", 1.0, worker="worker-0")[:-5])

    assert (logs.entries, logs.alarms) == ([], [])


@pytest.mark.parametrize(
    "record",
    [Submitted("steady-0", 1, 1.5, "ab", 3, 0.0, None), Resolved("steady-0", 1, 2.5, OK, "d", "")],
    ids=lambda record: type(record).__name__,
)
def test_record_survives_its_file(record: Record) -> None:
    text = to_line(record)

    assert text.count(b"\n") == 1
    assert from_line(text) == record


def test_digest_is_the_contents() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len({digest(result) for result in (b"x", b"y", None, [None], {b"k": 1, "k": 2})}) == 5


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TaskTimeoutError("t", state="queued", timeout_s=1), "TaskTimeoutError queued"),
        (TransformError("t", "KeyError", "x", ""), "TransformError"),
    ],
)
def test_outcome_of_an_error_is_its_class_and_state(error: Exception, outcome: str) -> None:
    future: Future[Any] = Future()
    future.set_exception(error)

    assert outcome_of(future) == (outcome, "", str(error))


@pytest.fixture
def census(tmp_path: Path) -> Census:
    """A census in which the test is supervisord."""
    found = Census(tmp_path)
    found.supervisord = os.getpid()
    return found


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes with a run directory in their environment, like a lab's."""
    started = []

    def start(**environment: str) -> subprocess.Popen[bytes]:
        given = os.environ | {"RACEPOOL_DIR": str(tmp_path)} | environment
        child = subprocess.Popen([sys.executable, "-c", "input()"], env=given, stdin=subprocess.PIPE)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_processes_are_known_by_their_run_directory(
    sleeper: Callable[..., subprocess.Popen[bytes]], census: Census, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    child = sleeper()
    census.spawned["worker-1"] = child.pid
    sleeper(RACEPOOL_DIR=f"{tmp_path}-other")
    wait_until(lambda: [(each.name, each.rss_kb > MIB) for each in census.processes()] == [("worker-1", True)])

    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: [each.state for each in census.processes()] == ["T"])
    (process,) = census.processes()

    assert str(process) == f"worker-1 (pid {child.pid}, frozen)"
    assert process.program == "worker"
    assert process.rss_kb > MIB


@pytest.mark.parametrize("adopted", [True, False])
def test_child_that_looks_like_a_worker_is_none(
    sleeper: Callable[..., subprocess.Popen[bytes]],
    census: Census,
    wait_until: Callable[..., None],
    adopted: bool,  # noqa: FBT001
) -> None:
    left = sleeper(SUPERVISOR_PROCESS_NAME="worker-1")
    census.supervisord = os.getpid() if adopted else 1
    census.spawned["worker-1"] = os.getpid() if adopted else left.pid
    wait_until(census.processes)
    (process,) = census.processes()

    assert (process.program, process.name) == ("other", "other")
    assert str(process).startswith(f"a child of worker-1 (pid {left.pid}")


def test_program_of_the_lab_is_known_by_the_pid_that_it_was_started_with(
    sleeper: Callable[..., subprocess.Popen[bytes]], census: Census, wait_until: Callable[..., None]
) -> None:
    census.supervisord = None
    census.own[sleeper().pid] = "client", "steady-0"

    wait_until(lambda: [(each.program, each.name) for each in census.processes()] == [("client", "steady-0")])


def test_all_processes_are_ended_frozen_ones_as_well(
    sleeper: Callable[..., subprocess.Popen[bytes]], census: Census, wait_until: Callable[..., None]
) -> None:
    child = sleeper()
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: len(census.processes()) == 1)

    assert end_all(census) == []
    assert child.wait(5) == -signal.SIGKILL


def test_death_of_a_process_is_told(
    sleeper: Callable[..., subprocess.Popen[bytes]], census: Census, wait_until: Callable[..., None]
) -> None:
    child = sleeper()
    wait_until(census.processes)
    (process,) = census.processes()
    assert died_at(process, 0.05) is None
    assert process.is_alive()

    child.kill()
    before = time.monotonic()
    died = died_at(process, 5.0)

    assert died is not None
    assert died - before < 5
    assert not process.is_alive(), "it waits to be reaped"
    child.wait()
    assert not signalled(process, signal.SIGCONT)
    assert died_at(process, 0.0) is not None


def test_process_that_has_the_pid_of_a_dead_one_is_not_hit(
    sleeper: Callable[..., subprocess.Popen[bytes]], census: Census, wait_until: Callable[..., None]
) -> None:
    stranger = sleeper()
    wait_until(census.processes)
    (process,) = census.processes()
    dead = replace(process, started=process.started - 1)

    assert not signalled(dead, signal.SIGKILL)
    assert died_at(dead, 5.0) is not None
    assert not dead.is_alive()
    assert process.is_alive()
    assert stranger.poll() is None


def look(rss_mib: int) -> list[LabProcess]:
    return [LabProcess(1, 1, 0, "broker", "broker", "S", rss_mib * MIB)]


@pytest.mark.parametrize(("late_mib", "is_flat"), [(55, True), (120, False)])
def test_growth_is_that_of_the_medians(late_mib: int, is_flat: bool) -> None:  # noqa: FBT001
    memory = MemorySamples()
    for second in range(100):
        memory.on_look(second, look(50 if second < 60 else late_mib))

    (growth,) = memory.growth(100.0)
    assert (growth.early_kb, growth.late_kb, growth.is_flat) == (50 * MIB, late_mib * MIB, is_flat)


def test_too_short_a_run_tells_nothing_of_growth() -> None:
    memory = MemorySamples()
    for second in range(30):
        memory.on_look(second, look(second))

    assert list(memory.growth(30.0)) == []


def test_samples_are_thinned_out_and_still_span_the_whole_run() -> None:
    memory = MemorySamples()
    for second in range(3 * SAMPLES_KEPT):
        memory.on_look(second, look(50))

    assert len(memory.samples) <= SAMPLES_KEPT
    assert memory.samples[0].at_s < 10
    assert memory.samples[-1].at_s > 3 * SAMPLES_KEPT - 10
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(memory.samples)]
    assert gaps[0] == gaps[-1]


def decoded(frames: list[Payload], inlet: Inlet[M]) -> M | None:
    try:
        return decode(frames, inlet)
    except BadFrameError:
        return None


def test_rubbish_is_the_same_for_the_same_seed_and_never_introduces_a_worker() -> None:
    source = Rubbish("1")
    said = [source.frames() for _ in range(5_000)]
    again = Rubbish("1")
    assert said == [again.frames() for _ in range(5_000)]

    understood = 0
    for frames in said:
        understood += decoded(frames, FROM_CLIENT) is not None
        understood += (result := decoded(frames, FROM_WORKER)) is not None
        understood += (beat := decoded(frames, FROM_HEARTBEAT)) is not None
        assert not isinstance(result, Ready)
        assert beat is None or not beat.busy
    assert 500 < understood < 4_500
