"""The thread that writes dead tasks, on a real disk that is full, slow or gone in some tests."""

import json
import os
import resource
import shutil
import stat
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from racepool.broker import dead_tasks
from racepool.broker.actions import KeepDeadTask
from racepool.broker.dead_tasks import DeadTaskWriter
from racepool.broker.tasks import Death
from racepool.protocol.logs import Log
from racepool.protocol.messages import Id
from racepool.protocol.quarantine import LostAttempt, Record, unpack_head
from tests.running import WaitUntil

BOUND_S = 10.0
WALL_OFFSET_S = 1_700_000_000.0
DEATHS = (
    Death("worker-0", "process_exit", None, assigned_at=1.0, lost_at=1.5),
    Death("worker-1", "silence", 9, assigned_at=2.0, lost_at=4.25),
)


class Lines:
    """The lines of the log. While `is_open` is not set, the thread that logs an info waits."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.is_open = threading.Event()
        self.is_open.set()

    def __call__(self, _logger: object, method: str, entry: Any) -> str:  # noqa: ANN401  # as structlog has it
        self.entries.append(json.loads(json.dumps(dict(entry) | {"level": method})))
        if method == "info":
            assert self.is_open.wait(BOUND_S)
        raise structlog.DropEvent

    def of(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["event"] == event]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp())
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def writer(run_dir: Path, lines: Lines) -> Iterator[DeadTaskWriter]:
    log: Log = structlog.wrap_logger(None, processors=[lines])
    made = DeadTaskWriter(run_dir, log)
    yield made
    lines.is_open.set()
    made.close(BOUND_S)


def poison(number: int = 0, payload: bytes = b"poison") -> KeepDeadTask:
    return KeepDeadTask(Id(number.to_bytes(16, "big")), 30_000, DEATHS, False, payload)


def name_of(number: int) -> str:
    return f"{number:032x}.dead"


def names_in(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "dead").iterdir())


def keep(writer: DeadTaskWriter, *tasks: KeepDeadTask) -> None:
    """Keeps these tasks, then closes the writer, as the broker does at its end."""
    for task in tasks:
        writer.keep(task, WALL_OFFSET_S)
    writer.close(BOUND_S)


def test_task_is_kept_with_its_attempts_in_wall_clock_time(writer: DeadTaskWriter, run_dir: Path) -> None:
    keep(writer, poison(1, b"any bytes"))

    content = (run_dir / "dead" / name_of(1)).read_bytes()
    attempts = (
        LostAttempt("worker-0", "process_exit", None, 1_700_000_001_000, 1_700_000_001_500),
        LostAttempt("worker-1", "silence", 9, 1_700_000_002_000, 1_700_000_004_250),
    )
    expected = Record(poison(1).task_id, 1_700_000_004_250, 30_000, attempts, zlib.crc32(b"any bytes"), 9)
    assert unpack_head(content) == (expected, len(content) - 9)
    assert content.endswith(b"any bytes")


def test_no_other_user_may_read_it_with_any_umask(writer: DeadTaskWriter, run_dir: Path) -> None:
    before = os.umask(0)
    try:
        keep(writer, poison(1))
    finally:
        os.umask(before)

    directory = run_dir / "dead"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / name_of(1)).stat().st_mode) == 0o600


def test_payload_in_a_buffer_of_libzmq_is_kept_too(writer: DeadTaskWriter, run_dir: Path) -> None:
    keep(writer, KeepDeadTask(poison(1).task_id, 30_000, DEATHS, False, memoryview(b"large")))

    assert (run_dir / "dead" / name_of(1)).read_bytes().endswith(b"large")


def test_pool_without_dead_tasks_has_neither_thread_nor_directory(writer: DeadTaskWriter, run_dir: Path) -> None:
    before = threading.active_count()
    writer.close(BOUND_S)

    assert threading.active_count() == before
    assert list(run_dir.iterdir()) == []


def test_task_that_is_given_up_again_replaces_its_record_and_nothing_else(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, wait_until: WaitUntil
) -> None:
    for number in range(dead_tasks.MAX_TASKS):
        writer.keep(poison(number), WALL_OFFSET_S)
    wait_until(lambda: len(lines.of("task_quarantined")) == dead_tasks.MAX_TASKS)

    keep(writer, poison(50, b"again"))

    assert names_in(run_dir) == [name_of(number) for number in range(dead_tasks.MAX_TASKS)]
    assert (run_dir / "dead" / name_of(50)).read_bytes().endswith(b"again")


def test_oldest_records_make_room_when_there_are_too_many(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, wait_until: WaitUntil
) -> None:
    for number in range(150):
        writer.keep(poison(number), WALL_OFFSET_S)
        wait_until(lambda number=number: len(lines.of("task_quarantined")) == number + 1)

    assert names_in(run_dir) == [name_of(number) for number in range(50, 150)]
    assert [entry["task_id"] for entry in lines.of("quarantine_dropped")] == [f"{n:032x}" for n in range(50)]
    assert lines.of("quarantine_failed") == []


def test_oldest_records_make_room_when_they_have_too_many_bytes(
    writer: DeadTaskWriter, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_tasks, "MAX_BYTES", 10_000)

    keep(writer, *(poison(number, bytes(3_000)) for number in range(5)), poison(5, bytes(6_000)))

    assert names_in(run_dir) == [name_of(4), name_of(5)]
    assert sum(path.stat().st_size for path in (run_dir / "dead").iterdir()) <= 10_000


def test_task_larger_than_all_records_may_be_is_dropped_and_costs_no_other(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_tasks, "MAX_BYTES", 10_000)

    keep(writer, poison(1), poison(2, bytes(10_001)), poison(3, bytes(9_990)))

    assert names_in(run_dir) == [name_of(1)]
    assert [entry["task_id"] for entry in lines.of("quarantine_failed")] == [f"{2:032x}", f"{3:032x}"]


def test_files_that_are_not_ours_stay_and_do_not_count(writer: DeadTaskWriter, run_dir: Path) -> None:
    (run_dir / "dead").mkdir()
    foreign = [run_dir / "dead" / name for name in ("notes.txt", "notes.dead", "notes.unfinished")]
    for path in foreign:
        path.write_text("mine")

    keep(writer, *(poison(number) for number in range(dead_tasks.MAX_TASKS)))

    assert set(names_in(run_dir)) == {path.name for path in foreign} | {name_of(n) for n in range(dead_tasks.MAX_TASKS)}


def test_what_a_killed_broker_was_writing_is_removed(writer: DeadTaskWriter, run_dir: Path) -> None:
    (run_dir / "dead").mkdir()
    for number in (1, 2):
        (run_dir / "dead" / name_of(number)).with_suffix(".unfinished").write_text("half a rec")

    keep(writer, poison(1))

    assert names_in(run_dir) == [name_of(1)]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 4 KiB. Keep it short: this includes the file of the test report."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_costs_the_record_and_neither_an_older_nor_a_later_one(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_tasks, "MAX_BYTES", 9_000)

    with full_disk():
        keep(writer, poison(1), poison(2, bytes(8_850)), poison(3))

    assert names_in(run_dir) == [name_of(1), name_of(3)]
    (failed,) = lines.of("quarantine_failed")
    assert (failed["task_id"], failed["level"]) == (f"{2:032x}", "error")
    assert "File too large" in failed["reason"]


def test_directory_that_cannot_be_made_is_logged_for_each_task(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines
) -> None:
    (run_dir / "dead").write_text("somebody's notes")

    keep(writer, poison(1), poison(2))

    assert [entry["task_id"] for entry in lines.of("quarantine_failed")] == [f"{1:032x}", f"{2:032x}"]
    assert "File exists" in lines.of("quarantine_failed")[0]["reason"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_that_may_not_be_written_to_is_logged(writer: DeadTaskWriter, run_dir: Path, lines: Lines) -> None:
    (run_dir / "dead").mkdir(mode=0o500)

    keep(writer, poison(1))

    assert "Permission denied" in lines.of("quarantine_failed")[0]["reason"]


def test_task_is_dropped_if_no_thread_can_be_started_and_a_later_one_is_kept(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        writer.keep(poison(1), WALL_OFFSET_S)
    assert writer._waiting_bytes == 0

    keep(writer, poison(2))

    assert names_in(run_dir) == [name_of(2)]
    assert [entry["task_id"] for entry in lines.of("quarantine_failed")] == [f"{1:032x}"]


def test_directory_that_was_removed_is_made_again(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, wait_until: WaitUntil
) -> None:
    writer.keep(poison(1), WALL_OFFSET_S)
    wait_until(lambda: lines.of("task_quarantined"))
    shutil.rmtree(run_dir / "dead")

    keep(writer, poison(2))

    assert names_in(run_dir) == [name_of(2)]


def test_disk_that_stands_still_blocks_nobody_and_the_tasks_that_wait_for_it_are_bounded(
    writer: DeadTaskWriter, lines: Lines, wait_until: WaitUntil
) -> None:
    lines.is_open.clear()  # the thread waits in the log line of its first write
    writer.keep(poison(0), WALL_OFFSET_S)
    wait_until(lambda: lines.of("task_quarantined"))

    started_at = time.monotonic()
    for number in range(1, 200):
        writer.keep(poison(number), WALL_OFFSET_S)
    took_s = time.monotonic() - started_at
    writer.close(0.1)

    assert took_s < 5.0
    *refused, unwritten = lines.of("quarantine_failed")
    assert [entry["task_id"] for entry in refused] == [f"{n:032x}" for n in range(dead_tasks.MAX_TASKS, 200)]
    assert unwritten["task_ids"] == [f"{n:032x}" for n in range(dead_tasks.MAX_TASKS)]
    assert "0.1 s" in unwritten["reason"]


def test_bytes_that_wait_are_bounded_but_one_task_of_any_size_may_wait(
    writer: DeadTaskWriter, run_dir: Path, lines: Lines, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_tasks, "QUEUE_BYTES", 1_000)
    lines.is_open.clear()
    writer.keep(poison(0, bytes(2_000)), WALL_OFFSET_S)
    wait_until(lambda: lines.of("task_quarantined"))

    writer.keep(poison(1, bytes(10)), WALL_OFFSET_S)
    lines.is_open.set()
    wait_until(lambda: writer._waiting_bytes == 0)
    keep(writer, poison(2, bytes(500)), poison(3, bytes(500)))

    assert names_in(run_dir) == [name_of(0), name_of(2), name_of(3)]
    assert [entry["task_id"] for entry in lines.of("quarantine_failed")] == [f"{1:032x}"]


def test_all_that_waits_is_written_at_the_brokers_end(writer: DeadTaskWriter, run_dir: Path) -> None:
    keep(writer, *(poison(number, bytes(100_000)) for number in range(60)))

    assert names_in(run_dir) == [name_of(number) for number in range(60)]


def test_payload_is_freed_as_soon_as_it_is_written(writer: DeadTaskWriter, lines: Lines, wait_until: WaitUntil) -> None:
    payload = bytearray(b"poison")
    writer.keep(KeepDeadTask(poison().task_id, 30_000, DEATHS, False, memoryview(payload)), WALL_OFFSET_S)
    wait_until(lambda: lines.of("task_quarantined"))

    def is_free() -> bool:
        try:
            payload.append(0)
        except BufferError:  # a view of it exists
            return False
        return True

    wait_until(is_free)


def test_directory_that_took_the_place_of_ours_gets_no_record(writer: DeadTaskWriter, run_dir: Path) -> None:
    moved = run_dir.with_name(f"{run_dir.name}-moved")
    run_dir.rename(moved)
    run_dir.mkdir()

    keep(writer, poison(1))

    assert list(run_dir.iterdir()) == []
    assert names_in(moved) == [name_of(1)]
    shutil.rmtree(moved)
