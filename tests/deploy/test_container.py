"""The Containerfile: linters accept it, and its programs run as process 1, from a wheel that is built as it says."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.deploy.recipe import CONTAINER, read_recipe
from tests.programs import required
from tests.running import ROOT, WaitUntil

RECIPE = read_recipe()
POOL, BASE, BUILD, EXAMPLE = (RECIPE[name] for name in ("pool", "base", "build", "example"))
COMPOSE = CONTAINER / "compose.yaml"
SUPERVISORD = (ROOT / "supervisord.conf").read_text(encoding="utf-8")
PATIENCE_S = 20.0
ORPHAN = """
import subprocess

def leave_orphan(race, *, polled_at, previous):
    told = subprocess.run(["sh", "-c", "sleep 0.2 > /dev/null & echo $!"], stdout=subprocess.PIPE, check=True).stdout
    return {"orphan": int(told)}
"""
SUBMIT = """
import json, sys
from racepool import ZmqPool
with ZmqPool() as pool:
    pool.wait_for_workers(timeout_s=20)
    print(json.dumps(pool.exec(open(sys.argv[1], "rb").read()).result(10)))
"""


def compose() -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return content


def run(*command: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    line = [str(part) for part in command]
    done = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Image:
    """What the Containerfile builds, for this machine's interpreter: an environment, and the example's folder."""

    scripts: Path
    workdir: Path

    def environment(self, directory: Path, **more: str) -> dict[str, str]:
        """The image's variables, with this run directory, and no variable of this process."""
        given = dict(argument.split("=", 1) for argument in BASE.all("ENV"))
        path = given["PATH"].replace("/opt/racepool/bin", str(self.scripts)).replace("$PATH", "/usr/bin:/bin")
        return given | {"PATH": path, "RACEPOOL_DIR": str(directory)} | more

    def command(self, arguments: list[str]) -> list[str]:
        return [str(self.scripts / arguments[0]), *arguments[1:]]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Builds as the Containerfile does, only from what it copies; dependencies are those of these tests."""
    top = tmp_path_factory.mktemp("image")
    for stage, folder in ((BUILD, top / "source"), (EXAMPLE, top / "workdir")):
        folder.mkdir()
        for sources, target in stage.copied():
            for source in sources:
                to = folder / target if target != "./" else folder
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, symlinks=True)  # the package consists of links
                else:
                    shutil.copy(ROOT / source, to)
    (wheel_line,) = [line for line in BUILD.all("RUN") if line.startswith("pip wheel")]
    python = top / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, *wheel_line.replace("/wheels", str(top / "wheels")).split()[1:], cwd=top / "source")
    (wheel,) = (top / "wheels").glob("racepool-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", top / "venv")
    run(*pip, "--python", python, "install", "--no-deps", "--ignore-installed", wheel, cwd=top)
    (packages,) = (top / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    assert (
        run(python, "-P", "-c", "import racepool; print(racepool.__path__[0])", cwd=top).strip()
        == f"{packages}/racepool"
    )
    return Image(python.parent, top / "workdir")


@contextmanager
def container(image: Image, env: dict[str, str], log: Path) -> Iterator[int]:
    """The pool in a pid namespace of its own, where its main process is process 1. Gives the pid of `unshare`."""
    line = [required("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    line += [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    if subprocess.run([*line, "true"], capture_output=True, check=False).returncode != 0:
        refuse = pytest.fail if os.environ.get("REQUIRE_PROGRAMS") == "1" else pytest.skip
        refuse("unshare may make no namespaces here")
    line += image.command([*POOL.exec_form("ENTRYPOINT"), *POOL.exec_form("CMD")])
    with log.open("w") as output, subprocess.Popen(line, env=env, cwd="/", stdout=output) as unshare:
        try:
            yield unshare.pid
        finally:
            unshare.kill()


def main_process(unshare_pid: int) -> int:
    return int(Path(f"/proc/{unshare_pid}/task/{unshare_pid}/children").read_text().split()[0])


def is_healthy(command: list[str], env: dict[str, str]) -> bool:
    return subprocess.run(command, env=env, cwd="/", capture_output=True, timeout=20, check=False).returncode == 0


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_linter_finds_no_fault_in_the_recipe() -> None:
    run(required(str(Path(sys.executable).with_name("hadolint"))), CONTAINER / "Containerfile")


def test_compose_file_keeps_to_its_schema() -> None:
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_everything_that_is_copied_is_sent_to_the_engine() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for stage in RECIPE.values() for sources, _ in stage.copied() for source in sources}

    assert kept == copied
    assert all((ROOT / source).exists() for source in copied)


def test_no_stage_that_is_run_is_roots() -> None:
    user = BASE.last("USER")

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.partition(':')[0]} " in BASE.all("RUN")[0]
    assert POOL.all("USER") == []
    assert EXAMPLE.last("USER") == user
    assert list(RECIPE)[-1] == "pool", "what is built if none is named"


def test_run_directory_is_private_and_the_volume_of_all_who_share_it() -> None:
    directory = dict(argument.split("=", 1) for argument in BASE.all("ENV"))["RACEPOOL_DIR"]
    services = compose()["services"]

    assert BASE.all("VOLUME") == [directory]
    assert BASE.all("RUN")[0].endswith(f"--owner=racepool --group=racepool --mode=0700 {directory}")
    for name in ("pool", "service"):
        assert f"run:{directory}" in services[name]["volumes"]


def test_compose_file_builds_stages_that_are_there_and_stops_with_patience() -> None:
    services = compose()["services"]
    builds = [service["build"] for service in services.values() if "build" in service]
    longest_s = sum(map(int, re.findall(r"^stopwaitsecs=(\d+)", SUPERVISORD, re.MULTILINE)))

    assert {build["target"] for build in builds} == {"pool", "example"} <= set(RECIPE)
    for build in builds:
        context = COMPOSE.parent / build["context"]
        assert context.resolve() == ROOT
        assert (context / build["dockerfile"]).resolve() == CONTAINER / "Containerfile"
    assert [services[name]["tmpfs"] for name in ("pool", "service") if services[name]["read_only"]] == [["/tmp"]] * 2  # noqa: S108
    assert int(services["pool"]["stop_grace_period"].removesuffix("s")) > longest_s


@pytest.mark.system
def test_pool_as_process_one_is_healthy_reaps_orphans_and_stops_at_sigterm(
    image: Image, run_dir: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    (tmp_path / "orphans.py").write_text(ORPHAN)
    transform = {"PYTHONPATH": str(tmp_path), "RACEPOOL_TRANSFORM": "orphans:leave_orphan"}
    env = image.environment(run_dir, RACEPOOL_WORKERS="1", **transform)
    healthy = image.command(POOL.exec_form("HEALTHCHECK"))
    log = tmp_path / "log"

    with container(image, env, log) as unshare:
        wait_until(lambda: is_healthy(healthy, env), PATIENCE_S)
        told = run(image.scripts / "python", "-c", SUBMIT, ROOT / "samples" / "harness.json", cwd=tmp_path, env=env)
        main = main_process(unshare)
        orphan = Path(f"/proc/{main}/root/proc/{json.loads(told)['orphan']}")
        assert b"racepool.supervision.supervisord" in Path(f"/proc/{main}/cmdline").read_bytes()
        wait_until(lambda: not orphan.exists(), PATIENCE_S)  # a zombie would still exist
        os.kill(main, getattr(signal, POOL.last("STOPSIGNAL")))
        wait_until(lambda: not Path(f"/proc/{main}").exists(), PATIENCE_S)
        assert not is_healthy(healthy, env)
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert {"worker_ready", "task_executed", "broker_stopped"} <= set(events)


@pytest.mark.system
def test_services_of_the_compose_file_work_together(
    image: Image, run_dir: Path, tmp_path: Path, wait_until: WaitUntil
) -> None:
    services = compose()["services"]
    port, tote_port = free_ports(2)
    variables = services["service"]["environment"] | {
        "SERVICE_HOST": "127.0.0.1", "SERVICE_PORT": str(port), "SERVICE_TOTE_URL": f"http://127.0.0.1:{tote_port}",
        "SERVICE_DATABASE": str(tmp_path / "money-flow.db"), "SERVICE_INTERVAL_S": "0.5",
    }  # fmt: skip
    env = image.environment(run_dir, **services["pool"]["environment"] | variables)
    tote = [*image.command(services["tote"]["command"]), "--host", "127.0.0.1", "--port", str(tote_port)]
    _, *check = services["service"]["healthcheck"]["test"]
    healthy = image.command([part.replace(":8080/", f":{port}/") for part in check])
    commands = [tote, image.command(EXAMPLE.exec_form("CMD"))]

    with container(image, env, tmp_path / "log"):
        started = [subprocess.Popen(command, env=env, cwd=image.workdir) for command in commands]
        try:
            wait_until(lambda: is_healthy(healthy, env), PATIENCE_S)
            wait_until(lambda: "task_executed" in (tmp_path / "log").read_text(), PATIENCE_S)
        finally:
            for process in started:
                process.kill()
                process.wait()
