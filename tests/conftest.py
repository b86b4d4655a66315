"""What all tests share: a bounded wait, a run directory, and races to submit."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.running import ROOMS

POLL_S = 0.01
LONGEST = {  # modules of half a minute and more
    *("test_chaos", "test_command_line", "test_documented_commands", "test_install", "test_keys", "test_life"),
    *("test_replay", "test_supervision", "test_pressure", "test_broker_restarts", "test_frozen_workers"),
    *(
        "test_replay_database",
        "test_examples",
        "test_planted_faults",
        "test_doctor",
        "test_fuzzing",
        "test_runner",
        "test_server",
        "test_watchdog",
    ),
    *("test_command", "test_demo", "test_site", "test_timeouts"),
}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts its background jobs so, and they pass it on
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the programs that tests start are to hear it

settings.register_profile("unhurried", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("unhurried")
settings.register_profile("ci", derandomize=True, database=None)  # the same examples for the same code
settings.register_profile("quick", settings.get_profile("ci"), max_examples=25)
settings.register_profile("long", max_examples=2_000)
settings.register_profile("hunt", max_examples=2_000, phases=[Phase.generate])  # whether there is a fault, not which


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Waits for a condition, with a bound: `wait_until(lambda: ..., timeout=5)`."""

    def wait(predicate: Callable[[], object], timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while not predicate():
            assert time.monotonic() < deadline, f"this did not come true within {timeout} s"
            time.sleep(POLL_S)

    return wait


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An address of the test's own, short enough for a socket."""
    directory = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
    yield f"ipc://{directory}/s.ipc"
    shutil.rmtree(directory)


@pytest.fixture
def run_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short enough for sockets; RACEPOOL_DIR of this process while the test runs."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("RACEPOOL_DIR", str(made))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def race() -> Callable[..., dict[str, Any]]:
    """A normalised race with this name, which tells tests/transforms.py what to do."""

    def build(name: str = "echo", race_id: str = "race-1") -> dict[str, Any]:
        return {
            "id": race_id,
            "name": name,
            "status": "open",
            "race_date_nz": "2026-01-31",
            "start_time_nz": "12:50",
            "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
        }

    return build


@pytest.fixture(autouse=True, scope="session")
def one_import_name() -> Iterator[None]:
    """No test imports a room by its bare name, which works in a clone and makes a second set of classes."""
    yield
    bare = {*ROOMS} & sys.modules.keys()
    assert bare == set(), f"imported past the name racepool: {bare}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take longest first, then all others of real pools, so that the run ends with short ones."""
    items.sort(key=lambda item: (item.path.stem not in LONGEST, item.get_closest_marker("system") is None))
