"""A pool in a pid namespace of its own, as in a container that shares its run directory: its pids are not ours."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from racepool.protocol.exits import Exit
from racepool.protocol.processes import own_pid, pid_here
from tests.running import RACEPOOL, ROOT, environment, racepool

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("unshare") is None, reason="a pid namespace needs root and `unshare`"
    ),
]
INSIDE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@dataclass(frozen=True)
class Contained:
    """The pool, and the pid that its supervisord has here."""

    env: dict[str, str]
    supervisord: int


@pytest.fixture(scope="module")
def contained() -> Iterator[Contained]:
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        env = environment(Path(folder), workers=1)
        command = [*INSIDE, str(RACEPOOL), "up"]
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as unshare:
            try:
                assert racepool("wait", "--timeout", 30, env=env).returncode == 0
                children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text()
                yield Contained(env, int(children.split()[0]))
            finally:
                unshare.kill()


@pytest.fixture(scope="module")
def findings(contained: Contained) -> list[dict[str, str]]:
    told: list[dict[str, str]] = json.loads(racepool("doctor", "--json", env=contained.env).stdout)["findings"]
    return told


def text_of(findings: list[dict[str, str]], check: str) -> str:
    return " ".join(each["text"] for each in findings if each["check"] == check)


def test_pool_in_a_container_is_well_for_the_doctor_of_the_host(findings: list[dict[str, str]]) -> None:
    assert [each for each in findings if each["level"] == "problem"] == []


def test_doctor_names_the_pids_of_the_host(contained: Contained, findings: list[dict[str, str]]) -> None:
    told = re.search(r"pid (\d+) \(pid (\d+) in its own pid namespace\) answered", text_of(findings, "broker"))
    assert told
    broker, inside = map(int, told.groups())

    assert own_pid(broker) == inside != broker
    assert f"held by the broker, pid {broker}" in text_of(findings, "lock")
    assert f"supervisord runs as pid {contained.supervisord}," in text_of(findings, "supervisor")
    assert own_pid(contained.supervisord) == 1
    assert "nor since the workers started" in text_of(findings, "clock")
    assert "the broker has" in text_of(findings, "open files")


def test_second_broker_names_the_pid_of_the_host(contained: Contained, findings: list[dict[str, str]]) -> None:
    told = re.search(r"held by the broker, pid (\d+)", text_of(findings, "lock"))
    assert told

    for command in ([str(RACEPOOL), "up"], [sys.executable, "-P", "-m", "racepool.broker"]):
        done = subprocess.run(command, env=contained.env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == Exit.LOCK_TAKEN
        assert f"another broker (pid {told[1]})" in done.stdout + done.stderr


def test_program_of_another_container_is_told_that_the_holder_is_not_visible(contained: Contained) -> None:
    """There the broker's pid may be that of any program, or of none."""
    told = subprocess.run(
        [*INSIDE, str(RACEPOOL), "doctor", "--json"],
        env=contained.env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    findings = json.loads(told.stdout)["findings"]
    second = subprocess.run(
        [*INSIDE, str(RACEPOOL), "up"], env=contained.env, capture_output=True, text=True, timeout=30, check=False
    )

    assert "held by a process that is not visible here" in text_of(findings, "lock")
    assert [each for each in findings if each["level"] == "problem"] == []
    assert second.returncode == Exit.LOCK_TAKEN
    assert "another broker (not visible from here) runs in" in second.stderr


def test_pid_of_another_namespace_is_found_here(contained: Contained) -> None:
    assert pid_here(1, contained.supervisord) == contained.supervisord
    assert pid_here(4_000_000, contained.supervisord) is None
    assert pid_here(os.getpid(), None) == pid_here(os.getpid(), os.getpid()) == os.getpid()
