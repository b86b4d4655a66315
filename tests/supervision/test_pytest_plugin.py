"""The pytest plugin in pytest runs of its own, as a project that uses racepool meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, TESTS

NOT_FOR_NOTHING = {"racepool.client", "racepool.protocol", "zmq", "pydantic", "structlog", "supervisor"}
UNUSED = """
import sys

def test_of_something_else(request):
    assert request.config.pluginmanager.hasplugin("racepool")
    assert {modules} & sys.modules.keys() == set()
"""


def pytest_run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("RACEPOOL_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-W", "error", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=base | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_run_that_does_not_use_it_loads_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_unused.py").write_text(UNUSED.format(modules=NOT_FOR_NOTHING))

    done = pytest_run(cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_project_with_a_client_folder_of_its_own_runs_its_tests(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "__init__.py").write_text("OURS = True\n")
    (tmp_path / "test_client.py").write_text("import client\n\n\ndef test_client():\n    assert client.OURS\n")

    done = pytest_run(cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
def test_example_of_tests_passes_with_a_pool_of_its_own() -> None:
    done = pytest_run("examples/test_money_flow.py", cwd=ROOT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.system
def test_pool_runs_the_transform_that_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "test_transform.py").write_text("""
RACE = {
    "id": "race-1", "name": "echo", "status": "open", "race_date_nz": "2026-01-31", "start_time_nz": "12:50",
    "entrants": [{"entrantId": "a", "name": "Paper Kettle", "runnerNumber": 1}],
}

def test_transform(racepool):
    assert racepool.exec(RACE).result(timeout=10)["worker"] in ("worker-0", "worker-1")
    assert racepool.stats().total_workers == 2

def test_same_pool_again(racepool):
    assert racepool.stats().counters.completed == 1
""")

    done = pytest_run(cwd=tmp_path, PYTHONPATH=str(TESTS), RACEPOOL_TRANSFORM="transforms:scripted")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.system
def test_pool_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("""
import pytest

@pytest.fixture(scope="session")
def racepool_settings():
    return {"workers": 1, "connect_timeout": 8.0}
""")
    (tmp_path / "test_transform.py").write_text("def test_transform(racepool):\n    pass\n")

    done = pytest_run(cwd=tmp_path, RACEPOOL_TRANSFORM="no_such_module:function")

    assert done.returncode == 1, done.stdout
    assert "SettingsError: RACEPOOL_TRANSFORM=no_such_module:function: No module named" in done.stdout
