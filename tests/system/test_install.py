"""The wheel alone, without extras, outside the clone, as in production."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.running import ROOT, WaitUntil

pytestmark = pytest.mark.system
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


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_wheel_runs_without_the_clone_or_any_extra(tmp_path: Path, run_dir: Path, wait_until: WaitUntil) -> None:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("racepool-*.whl")
    page = {
        f"racepool/commands/exporter/static/{path.name}"
        for path in (ROOT / "commands" / "exporter" / "static").iterdir()
    }
    assert page
    assert page - set(ZipFile(wheel).namelist()) == set()
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, racepool = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "racepool"
    run(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    base = {name: value for name, value in os.environ.items() if not name.startswith(("RACEPOOL_", "PYTHON"))}
    env = base | {"RACEPOOL_DIR": str(run_dir)}
    sample = ROOT / "samples" / "thoroughbred.json"

    assert "pytest" not in run(python, "-m", "pip", "list", cwd=tmp_path).stdout
    without_extra = subprocess.run(
        [racepool, "exporter"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert without_extra.returncode == 1
    assert without_extra.stderr.startswith("racepool: the exporter needs ")
    assert "pip install 'racepool[monitor]'" in without_extra.stderr
    assert "1 of 1" not in run(racepool, "transform", sample, cwd=tmp_path, env=env).stderr
    with subprocess.Popen([racepool, "up"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL) as up:
        try:
            run(python, "-c", USE, sample, cwd=tmp_path, env=env)
        finally:
            up.send_signal(signal.SIGTERM)
    assert up.returncode == 0
    wait_until(lambda: not (run_dir / "supervisord.pid").exists())
