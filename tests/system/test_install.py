"""The wheel outside the clone, without extras: what production gets, and what may lie beside it there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.running import ROOMS, ROOT, WaitUntil

pytestmark = pytest.mark.system
HATCHLING = [sys.executable, "-m", "hatchling", "build"]
SAMPLE = ROOT / "samples" / "thoroughbred.json"
USE = """
import os, signal, sys
from racepool import ZmqPool
body = open(sys.argv[1], "rb").read()
with ZmqPool() as pool:
    pool.wait_for_workers(timeout_s=20)
    assert pool.exec(body).result(10).money_flow_records
    os.kill(pool.stats().workers[0].pid, signal.SIGKILL)
    assert len([pool.exec(body).result(10) for _ in range(20)]) == 20
    import time
    deadline = time.monotonic() + 10
    while not pool.stats().counters.worker_crashes or pool.stats().total_workers < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""
SERVICE = """
import sys
import racepool
from racepool import local_pool
assert "site-packages" in racepool.__file__, racepool.__file__
with local_pool(workers=1) as pool:
    print(len(pool.exec(open(sys.argv[1], "rb").read()).result(30).money_flow_records), pool.stats().total_workers)
"""


@dataclass(frozen=True)
class Installation:
    """A virtual environment that has the wheel and what it needs, and nothing else."""

    wheel: Path
    bin: Path

    @property
    def python(self) -> Path:
        return self.bin / "python"


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pip_for(python: Path) -> list[str]:
    """Our pip, for another environment: the one that comes with Python may be old, and takes twice as long."""
    return [sys.executable, "-m", "pip", "--python", str(python)]


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(*HATCHLING, "-t", "wheel", "-d", folder, cwd=ROOT)
    return next(folder.glob("racepool-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    installation = Installation(wheel, folder / "venv" / "bin")
    constraints = ROOT / "constraints.txt"
    run(*pip_for(installation.python), "install", "-q", "--no-compile", "-c", constraints, wheel, cwd=folder)
    return installation


@pytest.fixture
def environment(run_dir: Path) -> dict[str, str]:
    """Ours without any setting of racepool or Python."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("RACEPOOL_", "PYTHON"))}
    return base | {"RACEPOOL_DIR": str(run_dir)}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """A service's own folder, with modules of the names of our rooms; each raises when it is imported."""
    for name in ROOMS:
        (tmp_path / f"{name}.py").write_text(
            f"raise RuntimeError('the service has its own {name}.py, which was imported')\n"
        )
    (tmp_path / "main.py").write_text(SERVICE)
    yield tmp_path
    assert not list(tmp_path.glob("__pycache__/*"))


def test_the_wheel_has_racepool_alone_at_its_top_and_all_of_it(wheel: Path) -> None:
    names = set(contents(wheel))
    product = {
        f"racepool/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))

    assert {name.partition("/")[0] for name in names} == {"racepool", metadata.partition("/")[0]}
    assert product - names == set()
    assert {"racepool/__init__.py", "racepool/py.typed", "racepool/supervision/supervisord.conf"} <= names


def test_the_wheel_is_the_same_from_the_tree_and_from_the_sdist(wheel: Path, tmp_path: Path) -> None:
    run(*HATCHLING, "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (sdist,) = tmp_path.glob("racepool-*.tar.gz")
    (tmp_path / "unpacked").mkdir()
    run("tar", "-xzf", sdist, "-C", tmp_path / "unpacked", cwd=tmp_path)
    (source,) = (tmp_path / "unpacked").iterdir()

    run(*HATCHLING, "-t", "wheel", "-d", tmp_path / "again", cwd=source)

    (again,) = (tmp_path / "again").glob("*.whl")
    assert contents(again) == contents(wheel)


@pytest.mark.parametrize("where", ["beside", "on PYTHONPATH"])
def test_service_with_modules_of_the_same_names_gets_its_result(
    installed: Installation, service: Path, environment: dict[str, str], where: str
) -> None:
    path = {"PYTHONPATH": str(service)} if where == "on PYTHONPATH" else {}

    done = run(installed.python, "main.py", SAMPLE, cwd=service, env=environment | path)

    records, workers = done.stdout.split()
    assert int(records) > 5
    assert workers == "1"


def test_the_wheel_runs_without_the_clone_or_any_extra(
    installed: Installation, environment: dict[str, str], run_dir: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    racepool = installed.bin / "racepool"
    assert "pytest" not in run(*pip_for(installed.python), "list", cwd=tmp_path).stdout
    without_extra = subprocess.run(
        [racepool, "exporter"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert without_extra.returncode == 1
    assert without_extra.stderr.startswith("racepool: the exporter needs ")
    assert f"pip install 'racepool[monitor] @ {installed.wheel.as_uri()}'\n" in without_extra.stderr
    assert "1 of 1" not in run(racepool, "transform", SAMPLE, cwd=tmp_path, env=environment).stderr
    with subprocess.Popen([racepool, "up"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as up:
        try:
            run(installed.python, "-c", USE, SAMPLE, cwd=tmp_path, env=environment)
        finally:
            up.send_signal(signal.SIGTERM)
    assert up.returncode == 0
    wait_until(lambda: not (run_dir / "supervisord.pid").exists())
