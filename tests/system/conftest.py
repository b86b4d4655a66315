"""A real pool: `racepool up` as a process, through pytest-xprocess, in a private run directory."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from xprocess import ProcessStarter, XProcess

from racepool import ZmqPool
from tests.running import RACEPOOL, Blocked, Race, Running, StartClient, StartPool, WaitUntil, environment

TOLD_LINES = 60
_logs_of_pools: Final[list[Path]] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the last lines of the pools' logs to a failed test: the run directories are deleted with the module."""
    report = yield
    if report.failed:
        for log in (path for folder in _logs_of_pools for path in sorted(folder.glob("*.log"))):
            lines = log.read_text(errors="replace").splitlines()
            report.sections.append((f"{log} ({len(lines)} lines)", "\n".join(lines[-TOLD_LINES:])))
    return report


@pytest.fixture(scope="session", autouse=True)
def hangup() -> None:
    """Under `nohup scripts/test`, the programs of the tests would be under nohup, too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def xprocess(request: pytest.FixtureRequest, tmpdir_factory: pytest.TempdirFactory) -> Iterator[XProcess]:
    """As the plugin's, but with a directory of this run: xdist's workers need one each, and a cache is not needed."""
    with XProcess(request.config, tmpdir_factory.mktemp("xprocess")) as processes:
        request.config._xprocess = processes  # type: ignore[attr-defined]  # where the plugin looks on Ctrl-C
        yield processes


@pytest.fixture(scope="module")
def run_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))  # ipc paths must be short
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def start_pool(xprocess: XProcess) -> Iterator[StartPool]:
    """Starts pools; all of them end with the module."""
    started: list[tuple[str, ZmqPool, Path]] = []

    def start(**settings: object) -> Running:
        directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
        _logs_of_pools.append(directory / "log")
        name = f"racepool-{directory.name}"
        env = environment(directory, **settings)

        class Starter(ProcessStarter):  # type: ignore[misc]  # xprocess has no types
            pattern = "racepool: Ctrl-C stops them"
            args = (RACEPOOL, "up")
            timeout = 30
            terminate_on_interrupt = True

        Starter.env = env
        pid, _ = xprocess.ensure(name, Starter)
        endpoint, keys = settings.get("endpoint", f"ipc://{directory}/frontend.ipc"), settings.get("keys")
        pool = ZmqPool(str(endpoint), curve=None if keys is None else str(keys))
        started.append((name, pool, directory))
        pool.wait_for_workers()
        return Running(directory, env, pool, pid)

    yield start
    for name, pool, directory in started:
        pool.shutdown(cancel_futures=True)
        xprocess.getinfo(name).terminate(kill_proc_tree=False)
        shutil.rmtree(directory, ignore_errors=True)
    _logs_of_pools.clear()


@pytest.fixture(scope="module")
def scripted(start_pool: StartPool) -> Running:
    """A pool of three workers that do what the race's name says (see tests/transforms.py)."""
    return start_pool(transform="transforms:scripted")


@pytest.fixture
def at_rest(scripted: Running, wait_until: WaitUntil) -> Iterator[None]:
    """Before and after each test the pool is whole and idle, and the counters add up."""
    wait_until(scripted.is_at_rest, 15)
    yield
    wait_until(scripted.is_at_rest, 15)
    submitted, accounted = scripted.books()
    assert submitted == accounted


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that does not exist yet, for races named `wait-for:`."""
    return tmp_path / "gate"


@pytest.fixture
def blocked(race: Race, wait_until: WaitUntil, gate: Path) -> Blocked:
    """Keeps workers busy until the end of the block, or until the test touches the gate."""

    @contextmanager
    def block(running: Running, *, workers: int | None = None, gate: Path = gate) -> Iterator[None]:
        before = running.stats()
        count = before.total_workers if workers is None else workers
        blocking = [running.exec(race(f"wait-for:{gate}", f"blocking-{index}")) for index in range(count)]
        wait_until(lambda: running.stats().in_flight == before.in_flight + count)
        try:
            yield
        finally:
            gate.touch()
        for future in blocking:
            future.result(20)

    return block


@pytest.fixture
def start_client() -> Iterator[StartClient]:
    """Starts client processes; each has submitted its races."""
    started: list[subprocess.Popen[str]] = []

    def start(running: Running, races: list[dict[str, Any]]) -> "subprocess.Popen[str]":
        command = [sys.executable, str(Path(__file__).with_name("client_process.py")), f"{running.dir}/frontend.ipc"]
        child = subprocess.Popen(command, env=running.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(races) + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "submitted\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
