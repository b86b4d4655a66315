"""The shipped systemd units: systemd accepts them, and their programs run."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from racepool.protocol.settings import Settings
from tests.deploy.units import PREFIX, SYSTEMD, command, read_unit, seconds
from tests.programs import required
from tests.running import ROOT, WaitUntil, state_of

SCRIPTS = Path(sys.executable).parent
SERVICES = ("racepool.service", "racepool-broker.service", "racepool-worker@.service")
UNITS = (*SERVICES, "racepool.target")
MOST_EXPOSED = 10  # in tenths: 1.0 of 10, which systemd calls safe
GIB = 2**30
ALIKE = re.compile(
    r"Protect|Restrict|Private|SystemCall|NoNew|Capability|Lock|RemoveIPC|IPAddress|State|User|Group|UMask"
)
PATIENCE_S = 20.0


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, adapted to this machine: another path of racepool, another user."""
    for path in SYSTEMD.glob("racepool*"):
        text = path.read_text(encoding="utf-8").replace(PREFIX, f"{SCRIPTS}/")
        (tmp_path / path.name).write_text(re.sub("^(User|Group)=racepool$", r"\1=daemon", text, flags=re.MULTILINE))
    return tmp_path


def environment_of(unit: dict[str, list[str]], state: Path) -> dict[str, str]:
    """The environment that systemd gives the unit's processes, without any variable of this process."""
    given = [value.replace("%S/racepool", str(state)).replace("%i", "1") for value in unit["Environment"]]
    return {"PATH": "/usr/local/bin:/usr/bin:/bin"} | dict(value.split("=", 1) for value in given)


@contextmanager
def main_process(unit: dict[str, list[str]], env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The unit's main process. Ends it by SIGTERM, which must take no longer than the unit allows."""
    with subprocess.Popen(command(unit, "ExecStart", SCRIPTS), env=env, cwd="/", stdout=subprocess.DEVNULL) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(seconds(unit["TimeoutStopSec"][0])) == 0
        finally:
            process.kill()


def run(command_line: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command_line, env=env, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_systemd_finds_no_fault_in_the_units(installed: Path) -> None:
    names = [name.replace("@.", "@1.") for name in UNITS]
    verify = [required("systemd-analyze"), "verify", *(str(installed / name) for name in names)]

    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_calls_the_units_safe(installed: Path, name: str) -> None:
    options = ["--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", str(installed / name)]

    done = subprocess.run(
        [required("systemd-analyze"), "security", *options], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("name", SERVICES[1:])
def test_user_and_sandbox_are_the_same_in_all_units(name: str) -> None:
    one, other = (
        {key: value for key, value in read_unit(each).items() if ALIKE.match(key)} for each in (SERVICES[0], name)
    )

    assert len(one) > 20
    assert other == one


def test_units_wait_for_a_stop_as_long_as_it_may_take() -> None:
    shipped = (ROOT / "supervisord.conf").read_text(encoding="utf-8")
    supervisord_s = sum(map(int, re.findall(r"^stopwaitsecs=(\d+)", shipped, re.MULTILINE)))
    whole, broker, worker = (seconds(read_unit(name)["TimeoutStopSec"][0]) for name in SERVICES)

    assert whole > supervisord_s
    assert worker > Settings.model_fields["run_timeout"].default
    assert broker == int(re.findall(r"^stopwaitsecs=(\d+)", shipped, re.MULTILINE)[0])


def test_memory_limits_leave_the_broker_its_own() -> None:
    limit = Settings.model_fields["broker_memory_limit"].default
    whole, broker, _ = (int(read_unit(name)["MemoryMax"][0].removesuffix("G")) * GIB for name in SERVICES)

    assert limit < broker < whole


@pytest.mark.system
def test_unit_with_supervisord_runs_and_stops_whole(run_dir: Path, wait_until: WaitUntil) -> None:
    unit = read_unit("racepool.service")
    env = environment_of(unit, run_dir)

    with main_process(unit, env) as supervisord:
        assert "workers are ready" in run(command(unit, "ExecStartPost", SCRIPTS), env)
        stats = json.loads(run([str(SCRIPTS / "racepool"), "stats", "--json"], env))
        pids = [stats["broker"]["pid"], *(worker["pid"] for worker in stats["workers"])]
        assert int((run_dir / "supervisord.pid").read_text()) == supervisord.pid, (
            "systemd's main process is supervisord"
        )
    wait_until(lambda: not any(map(state_of, pids)), PATIENCE_S)


@pytest.mark.system
def test_units_of_single_processes_make_a_pool(run_dir: Path) -> None:
    broker, worker = read_unit("racepool-broker.service"), read_unit("racepool-worker@.service")
    env = environment_of(broker, run_dir)

    with main_process(broker, env), main_process(worker, environment_of(worker, run_dir)):
        assert "workers are ready" in run(command(broker, "ExecStartPost", SCRIPTS), env)
        run([str(SCRIPTS / "racepool"), "wait", "--workers", "1"], env)
        stats = json.loads(run([str(SCRIPTS / "racepool"), "stats", "--json"], env))
        assert [each["name"] for each in stats["workers"]] == ["worker-1"]
        told = run([str(SCRIPTS / "racepool"), "transform", str(ROOT / "samples" / "harness.json")], env)
        assert "OTTERBY TROPHY" in told
