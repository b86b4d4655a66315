"""A service's own modules, with names such as ours, on PYTHONPATH: our programs run, never theirs."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RACEPOOL, environment, racepool
from tests.system.exporting import exporting, fetch

pytestmark = pytest.mark.system
NAMES = (
    *("broker", "worker", "client", "protocol", "races", "storage", "supervision", "commands", "watchdog", "exporter"),
    *("doctor", "transforms", "settings", "samples", "scripts", "tests"),
)
SOURCE = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
LOCAL_POOL = """
import json, sys
from racepool import local_pool
with local_pool(workers=1) as pool:
    print(json.dumps(pool.exec(json.loads(sys.argv[1])).result(timeout=30)))
"""
RACE = {"id": "r", "name": "Cup", "race_date_nz": "2026-01-31", "start_time_nz": "12:00"}


@pytest.fixture(scope="module")
def service() -> Iterator[Path]:
    """The folder of a service."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        for name in NAMES:
            (Path(folder) / f"{name}.py").write_text(SOURCE)
        (Path(folder) / "mine.py").write_text("def mine(race, *, polled_at, previous):\n    return {'id': race.id}\n")
        yield Path(folder)


@pytest.fixture(scope="module")
def env(service: Path) -> Iterator[dict[str, str]]:
    """The environment of a pool that runs in the service's folder."""
    env = environment(service / "run", workers=1, transform="mine:mine") | {"PYTHONPATH": "."}
    with subprocess.Popen([str(RACEPOOL), "up"], cwd=service, env=env, stdout=subprocess.DEVNULL) as up:
        assert racepool("wait", "--timeout", 30, env=env).returncode == 0
        yield env | {"PYTHONPATH": str(service)}
        up.send_signal(signal.SIGTERM)


def ran(service: Path) -> list[str]:
    return sorted(path.stem for path in service.glob("*.ran"))


def test_programs_of_the_pool_are_ours(service: Path, env: dict[str, str]) -> None:
    doctor = racepool("doctor", "--json", env=env)
    programs = [each["text"] for each in json.loads(doctor.stdout)["findings"] if each["check"] == "programs"]

    assert "watchdog" in " ".join(programs)
    assert ran(service) == []


def test_exporter_is_ours(service: Path, env: dict[str, str]) -> None:
    with exporting(env) as url:
        assert "racepool_up 1.0" in fetch(f"{url}metrics")

    assert ran(service) == []


def test_local_pool_is_ours_and_runs_the_transform_of_the_service(service: Path, env: dict[str, str]) -> None:
    own = {name: value for name, value in env.items() if name != "RACEPOOL_DIR"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOCAL_POOL, json.dumps(RACE)],
        cwd=service, env=own, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, json.loads(done.stdout or "null")) == (0, {"id": "r"}), done.stderr
    assert ran(service) == []


def test_module_of_the_standard_librarys_name_counts_on_pythonpath_alone(tmp_path: Path) -> None:
    """Our programs leave the current folder out (-P). PYTHONPATH comes before the standard library in any Python."""
    (tmp_path / "signal.py").write_text("raise RuntimeError('the signal.py of the service')\n")
    line = [sys.executable, "-P", "-m", "racepool.broker", "--help"]
    env = environment(tmp_path / "run")
    del env["PYTHONPATH"]

    told = [
        subprocess.run(line, cwd=tmp_path, env=each, capture_output=True, text=True, timeout=30, check=False).stderr
        for each in (env, env | {"PYTHONPATH": str(tmp_path)})
    ]

    assert ["the signal.py of the service" in each for each in told] == [False, True]
