"""Local pools with a real supervisord, a real broker and real workers."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from racepool import PoolFuture, ZmqPool, local_pool
from racepool.protocol.errors import (
    BrokerUnavailableError,
    InvalidRaceError,
    PayloadTooLargeError,
    PoolClosedError,
    SettingsError,
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
)
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.supervision.local_pool import LocalPool, _insist
from racepool.supervision.run_directory import sweep
from tests.running import TESTS, environment

pytestmark = pytest.mark.system
BOUND_S = 10.0
QUICK: dict[str, Any] = {"heartbeat_interval": 0.1, "liveness": 1.0, "connect_timeout": 20.0}
Race = Callable[..., dict[str, Any]]
WaitUntil = Callable[..., None]


def submit(pool: ZmqPool, race: object, **options: Any) -> PoolFuture[Any]:  # noqa: ANN401
    """As `exec`, for a transform that returns no TransformedRace."""
    return pool.exec(race, **options)  # type: ignore[arg-type]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def directory_of(pool: ZmqPool) -> Path:
    return pool._connected().settings.dir


def tree_of(pool: ZmqPool) -> list[int]:
    """The pids of supervisord and its processes."""
    supervisord = int((directory_of(pool) / "supervisord.pid").read_text())
    return [supervisord, *children(supervisord)]


@pytest.fixture(scope="module")
def scripted() -> Iterator[ZmqPool]:
    """A pool with two workers; the name of a race tells a worker what to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        patch.setenv("RACEPOOL_TRANSFORM", "no_such_module:f")  # the argument comes first
        local = local_pool(workers=2, transform="transforms:scripted", **QUICK, payload_limit=1 << 20)
        pool = local.__enter__()
    yield pool
    local.__exit__(None, None, None)


def test_exec_right_after_the_start_succeeds(scripted: ZmqPool, race: Race) -> None:
    assert submit(scripted, race("echo", "r1")).result(BOUND_S)["id"] == "r1"
    stats = scripted.stats()
    assert (stats.total_workers, stats.expected_workers) == (2, 2)


def test_transform_sees_the_poll(scripted: ZmqPool, race: Race) -> None:
    polled_at = datetime(2026, 1, 31, tzinfo=UTC)

    told = submit(scripted, race(), polled_at=polled_at).result(BOUND_S)

    assert told["polled_at"] == polled_at.isoformat()
    assert told["has_previous"] is False


def test_what_the_transform_raises_comes_back(scripted: ZmqPool, race: Race) -> None:
    with pytest.raises(TransformError, match=r"task .* \(race r1\).*RuntimeError: as the test asked") as raised:
        submit(scripted, race("raise", "r1")).result(BOUND_S)
    assert (raised.value.type, raised.value.message) == ("RuntimeError", "as the test asked")
    assert "transforms.py" in raised.value.remote_traceback


def test_invalid_race_names_its_paths(scripted: ZmqPool, race: Race) -> None:
    with pytest.raises(InvalidRaceError, match="race_number") as raised:
        submit(scripted, race() | {"race_number": "7"}).result(BOUND_S)
    assert [error.path for error in raised.value.errors] == ["race_number"]
    with pytest.raises(InvalidRaceError):
        submit(scripted, b"no json").result(BOUND_S)


def test_result_that_cannot_travel_is_an_error(scripted: ZmqPool, race: Race) -> None:
    with pytest.raises(TransformError, match="TypeError"):
        submit(scripted, race("unpackable")).result(BOUND_S)
    with pytest.raises(PayloadTooLargeError, match="result of task"):
        submit(scripted, race(f"large:{2 << 20}")).result(BOUND_S)


def test_worker_that_dies_every_time_ends_in_a_crash_error(scripted: ZmqPool, race: Race) -> None:
    with pytest.raises(WorkerCrashedError, match="3 attempts") as raised:
        submit(scripted, race("kill")).result(BOUND_S)
    assert len(raised.value.attempts) == 3
    scripted.wait_for_workers(2, BOUND_S)


def test_task_of_a_worker_that_died_is_done_by_another(scripted: ZmqPool, race: Race, tmp_path: Path) -> None:
    future = submit(scripted, race(f"kill-once:{tmp_path}/killed", "r1"))

    assert future.result(BOUND_S)["id"] == "r1"
    assert (tmp_path / "killed").exists()
    scripted.wait_for_workers(2, BOUND_S)


@pytest.mark.parametrize("name", ["spin", "hold-gil"])
def test_task_that_never_ends_is_ended_by_its_run_timeout(scripted: ZmqPool, race: Race, name: str) -> None:
    with pytest.raises(TaskTimeoutError, match=r"0\.3 s while running") as raised:
        submit(scripted, race(name), run_timeout_s=0.3).result(BOUND_S)
    assert raised.value.state == "running"
    scripted.wait_for_workers(2, BOUND_S)


def test_queued_task_times_out_while_workers_are_busy(scripted: ZmqPool, race: Race, tmp_path: Path) -> None:
    busy = [submit(scripted, race(f"wait-for:{tmp_path}/go")) for _ in range(2)]

    with pytest.raises(TaskTimeoutError, match=r"0\.3 s while queued"):
        submit(scripted, race(), queue_timeout_s=0.3).result(BOUND_S)

    (tmp_path / "go").touch()
    assert wait(busy, BOUND_S).not_done == set()


def test_queue_timeout_spares_a_task_that_runs(scripted: ZmqPool, race: Race, tmp_path: Path) -> None:
    running = submit(scripted, race(f"wait-for:{tmp_path}/go", "r1"), queue_timeout_s=0.2)
    assert wait([running], 0.8).done == set()

    (tmp_path / "go").touch()

    assert running.result(BOUND_S)["id"] == "r1"


def test_cancelled_running_task_gives_its_worker_back_at_once_when_killed(
    scripted: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    future = submit(scripted, race("spin"))
    wait_until(lambda: scripted.stats().active_workers == 1)

    assert future.cancel(kill=True)

    wait_until(lambda: scripted.stats().active_workers == 0)
    scripted.wait_for_workers(2, BOUND_S)


def test_many_awaited_at_once(scripted: ZmqPool, race: Race) -> None:
    async def main() -> list[Any]:
        await scripted.wait_for_workers_async(2)
        return await asyncio.gather(*(submit(scripted, race("echo", f"r{number}")) for number in range(300)))

    assert [told["id"] for told in asyncio.run(main())] == [f"r{number}" for number in range(300)]


def test_two_at_once_and_equal_results_for_every_form(scripted: ZmqPool, race: Race, wait_until: WaitUntil) -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    text = json.dumps(race())
    forms = [race(), text, text.encode(), RaceData.parse(race())]
    with local_pool(workers=1, **QUICK) as pool:
        results = [submit(pool, form, polled_at=at).result(BOUND_S) for form in forms]
        directory, tree = directory_of(pool), tree_of(pool)
        assert directory != directory_of(scripted)
        assert len(tree) == 5
        assert all(is_alive(pid) for pid in tree)

    assert results == [transform_race(RaceData.parse(race()), polled_at=at)] * len(forms)
    wait_until(lambda: not any(is_alive(pid) for pid in tree))
    assert not directory.exists()
    with pytest.raises(PoolClosedError):
        pool.exec(race())
    assert submit(scripted, race()).result(BOUND_S)["id"] == "race-1"


CALLER = """
import sys, time
from racepool import local_pool
with local_pool(workers=1, heartbeat_interval=0.1, liveness=1.0) as pool:
    pool.exec({"name": "no race"}).exception(10)
    print(pool._connected().settings.dir, flush=True)
    time.sleep(60)
"""


@contextmanager
def a_caller(temporary: Path) -> Iterator[tuple["subprocess.Popen[str]", Path, list[int]]]:
    """A program in the block of a local pool, its folder, and the pids of supervisord and its processes."""
    env = environment(temporary, tmpdir=temporary) | {"TMPDIR": str(temporary)}
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert caller.stdout is not None
    directory = Path(caller.stdout.readline().strip())
    supervisord = int((directory / "supervisord.pid").read_text())
    tree = [supervisord, *children(supervisord)]
    assert len(tree) == 5
    yield caller, directory, tree
    caller.communicate(timeout=BOUND_S)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_all_is_gone_when_the_caller_is_killed(end: signal.Signals, run_dir: Path, wait_until: WaitUntil) -> None:
    beside = run_dir / "beside"
    beside.mkdir()
    (beside / "notes").write_text("somebody's")
    with a_caller(run_dir) as (caller, directory, tree):
        (directory / "link").symlink_to(beside)
        caller.send_signal(end)

    wait_until(lambda: not any(is_alive(pid) for pid in tree), timeout=BOUND_S)
    wait_until(lambda: not directory.exists(), timeout=BOUND_S)
    assert (beside / "notes").exists()


def test_folder_of_a_killed_caller_and_supervisord_is_removed_by_the_next_pool(
    run_dir: Path, wait_until: WaitUntil
) -> None:
    with a_caller(run_dir) as (caller, directory, tree):
        os.kill(tree[0], signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in tree[1:]), timeout=BOUND_S)
        assert directory.exists(), "the caller lives, and removes it"
        sweep(run_dir)
        assert directory.exists()
        caller.kill()
    assert directory.exists(), "no process is left that could remove it"

    os.utime(directory, (time.time() - 3600,) * 2)
    sweep(run_dir)

    assert not directory.exists()


def test_set_up_that_cannot_work_is_a_settings_error_at_once() -> None:
    pool = local_pool(workers=3, transform="no_such_module:f", **(QUICK | {"connect_timeout": 60.0}))
    started_at = time.monotonic()

    with pytest.raises(SettingsError, match=r"^RACEPOOL_TRANSFORM=no_such_module:f: No module named 'no_such_module'"):
        pool.__enter__()

    assert time.monotonic() - started_at < 30.0
    assert not pool._settings.dir.exists()


ENDING = """
import os, pathlib, signal, sys
mark = pathlib.Path(__file__).with_name("mark")
if mark.exists():
    os.kill(os.getppid(), signal.SIGKILL)
mark.touch()
sys.stderr.write("the module ends the process")
sys.stderr.flush()
os._exit(3)
"""


def test_workers_that_cannot_start_are_an_error_with_their_log(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    (run_dir / "ending.py").write_text(ENDING)  # at its second start it ends supervisord, which stands for the timeout
    monkeypatch.setenv("PYTHONPATH", str(run_dir))
    pool = local_pool(workers=1, transform="ending:f", **(QUICK | {"connect_timeout": 60.0}))

    with pytest.raises(BrokerUnavailableError, match="did not start: supervisord ended with code -9\n") as raised:
        pool.__enter__()

    assert re.search(
        r"(?s)\n *worker-0 ended \d\.\d s after its start \(exit status 3\).*the module ends", str(raised.value)
    )
    assert not pool._settings.dir.exists()


def test_workers_that_are_not_ready_in_time_are_an_error() -> None:
    pool = local_pool(workers=1, connect_timeout=0.01)

    with pytest.raises(
        BrokerUnavailableError, match=r"did not start: (only 0 of 1 workers|no broker answered in time)"
    ):
        pool.__enter__()

    assert not pool._settings.dir.exists()


def test_pool_works_in_any_folder_with_an_interpreter_in_any_folder(
    run_dir: Path, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, environment_dir = run_dir / "My #1 ;%s 'é\"", run_dir / "env #2 ;%(x)s 'é\""
    temporary.mkdir()
    (run_dir / "My").write_text("somebody's notes")
    prefix = Path(sys.prefix)
    (environment_dir / "bin").mkdir(parents=True)
    (environment_dir / "lib").symlink_to(prefix / "lib")
    (environment_dir / "pyvenv.cfg").symlink_to(prefix / "pyvenv.cfg")
    python = environment_dir / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(sys, "executable", str(python))

    with local_pool(workers=1, **QUICK) as pool:
        assert directory_of(pool).parent == temporary
        assert pool.exec(race(), polled_at=datetime(2026, 1, 31, tzinfo=UTC)).result(BOUND_S).race_id
        tree = tree_of(pool)
        told = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in tree]
        os.kill(tree[0], signal.SIGKILL)  # the end of the block removes all, also without supervisord

    assert list(temporary.iterdir()) == []
    assert set(told) == {os.fsencode(python)}
    assert (run_dir / "My").read_text() == "somebody's notes"


@pytest.mark.parametrize("setting", [{"name": "w"}, {"exporter_port": 1}])
def test_setting_that_no_pool_of_ones_own_has_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"RACEPOOL_{next(iter(setting)).upper()}"):
        local_pool(**setting)


def test_supervisord_that_ends_at_once_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "racepool.supervision.local_pool.supervisord_command",
        lambda _: ["/bin/sh", "-c", "echo its last words >&2; exit 3"],
    )
    pool = local_pool(workers=1)
    started_at = time.monotonic()

    with pytest.raises(BrokerUnavailableError, match=r"did not start: supervisord ended with code 3\n *its last words"):
        pool.__enter__()

    assert time.monotonic() - started_at < 5
    assert not pool._settings.dir.exists()


def test_bad_setting_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    with pytest.raises(SettingsError, match="RACEPOOL_MAX_ATTEMPTS"):
        local_pool(workers=1, max_attempts=0)
    with pytest.raises(SettingsError, match="NO_SUCH_SETTING"):
        local_pool(workers=1, no_such_setting=0)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(SettingsError, match="shorter RACEPOOL_DIR"):
        local_pool(workers=1)
    assert list(tmp_path.iterdir()) == []


def test_directory_that_cannot_be_made_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:  # of a short name: the paths of sockets are checked first
        monkeypatch.setenv("TMPDIR", file.name)

        with pytest.raises(SettingsError, match="cannot be made"):
            local_pool(workers=1).__enter__()


def test_busy_pool_ends_soon_when_its_async_block_fails(
    monkeypatch: pytest.MonkeyPatch, race: Race, wait_until: WaitUntil
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("RACEPOOL_TRANSFORM", "transforms:scripted")
    started_at = 0.0
    pools: list[ZmqPool] = []

    async def fail() -> None:
        nonlocal started_at
        async with local_pool(workers=1, **QUICK) as pool:
            pools.append(pool)
            submit(pool, race("sleep:20"))
            await asyncio.to_thread(wait_until, lambda: pool.stats().active_workers)
            started_at = time.monotonic()
            raise KeyError("the block's own")

    with pytest.raises(KeyError):
        asyncio.run(fail())
    assert time.monotonic() - started_at < 8.0, "nobody waits for a result any more"
    assert not directory_of_ended(pools[0]).exists()


class Observed(LocalPool):
    """A local pool that tells other threads when its block was entered."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  # any setting's value
        super().__init__(local_pool(workers=1, **(QUICK | settings))._settings)
        self.entered = threading.Event()

    def __enter__(self) -> ZmqPool:
        pool = super().__enter__()
        self.entered.set()
        return pool

    def is_gone(self, tree: list[int]) -> bool:
        return not self._settings.dir.exists() and not any(is_alive(pid) for pid in tree)


def supervisord_of(local: LocalPool) -> int:
    assert local._supervisord is not None
    return local._supervisord.pid


def test_cancellation_just_when_the_pool_was_ready_leaves_nothing_behind(wait_until: WaitUntil) -> None:
    local = Observed()
    tree: list[int] = []

    async def enter_and_cancel() -> None:
        entering = asyncio.create_task(local.__aenter__())
        await asyncio.to_thread(wait_until, lambda: local._supervisord)
        assert local.entered.wait(
            20.0
        )  # blocks the loop, so that the loop learns of the success after the cancellation
        tree.extend([supervisord_of(local), *children(supervisord_of(local))])
        entering.cancel()
        await entering

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(enter_and_cancel())
    assert len(tree) == 5
    wait_until(lambda: local.is_gone(tree))


def test_cancellation_while_the_pool_starts_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setenv("RACEPOOL_TRANSFORM", "no_such_module:f")  # no worker ever gets ready
    local = Observed()

    async def enter_and_cancel() -> None:
        entering = asyncio.create_task(local.__aenter__())
        await asyncio.to_thread(wait_until, (local._settings.dir / "supervisord.pid").exists)
        entering.cancel()
        await entering

    started_at = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(enter_and_cancel())
    assert time.monotonic() - started_at < QUICK["connect_timeout"], "it does not wait for workers to the end"
    assert not local.entered.is_set()
    wait_until(lambda: local.is_gone([supervisord_of(local)]))


def test_cancellation_while_the_block_ends_cancels_what_is_unresolved(
    monkeypatch: pytest.MonkeyPatch, race: Race, wait_until: WaitUntil
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("RACEPOOL_TRANSFORM", "transforms:scripted")
    local = Observed()
    futures: list[PoolFuture[Any]] = []

    async def leave_and_cancel() -> None:
        pool = await local.__aenter__()
        futures.append(submit(pool, race("sleep:60")))
        await asyncio.to_thread(wait_until, lambda: pool.stats().active_workers)
        leaving = asyncio.create_task(local.__aexit__(None, None, None))
        await asyncio.to_thread(wait_until, lambda: pool._is_shut_down)
        leaving.cancel()
        await leaving

    started_at = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave_and_cancel())
    assert time.monotonic() - started_at < 40.0, "nobody waits for the task"
    assert futures[0].cancelled()
    wait_until(lambda: local.is_gone([supervisord_of(local)]))


def test_forked_child_that_leaves_the_block_leaves_the_pool_to_its_parent(wait_until: WaitUntil) -> None:
    local = Observed()
    with local as pool:
        child = os.fork()
        if child == 0:
            try:
                local.__exit__(None, None, None)
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

        assert is_alive(supervisord_of(local))
        assert local._settings.dir.exists()
        assert pool.stats().total_workers == 1
    wait_until(lambda: local.is_gone([supervisord_of(local)]))


def test_interrupts_do_not_keep_the_end_from_its_work_and_are_raised_after_it() -> None:
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _insist(step)

    assert calls == 4


def directory_of_ended(pool: ZmqPool) -> Path:
    assert pool._engine is not None
    return pool._engine.settings.dir
