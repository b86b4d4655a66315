"""The first command that a newcomer runs."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import ROOT
from tests.tmux import terminal

pytestmark = pytest.mark.system
DEMO = ROOT / "scripts" / "demo"
PATIENCE_S = 180  # the first run makes an environment
NEXT = "What to try next"


@pytest.fixture
def folder(wait_until: Callable[..., None]) -> Iterator[Path]:
    """A folder for temporary files, short enough for sockets. No process of it is left at the end, and no file."""
    with tempfile.TemporaryDirectory(prefix="rp-", dir="/tmp") as name:
        yield Path(name)
        wait_until(lambda: list(Path(name).iterdir()) == [] and _processes(Path(name)) == [], 60)


@pytest.fixture
def env(folder: Path) -> dict[str, str]:
    """A folder for temporary files of the demo's own, and the address of a pool that it must not ask."""
    return os.environ | {"TMPDIR": str(folder), "RACEPOOL_STATS_ENDPOINT": "ipc:///nowhere/stats.ipc"}


def _processes(folder: Path) -> list[str]:
    """The command lines of those whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"RACEPOOL_DIR={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended, or is another user's
            continue
    return found


def test_demo_ends_by_itself_from_any_folder_without_a_terminal(env: dict[str, str]) -> None:
    done = subprocess.run(
        [DEMO],
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "OTTERBY TROPHY" in done.stdout
    assert "worker_lost worker-0" in done.stdout
    assert NEXT in done.stdout


@pytest.mark.parametrize("sign", ["A broker and three workers start", "OTTERBY TROPHY"])
def test_ctrl_c_ends_the_demo_and_all_that_it_started(
    env: dict[str, str], wait_until: Callable[..., None], sign: str
) -> None:
    with terminal(env, 100, 200) as tmux:
        tmux.keys(f"{DEMO}; echo ended with $?", "Enter")
        wait_until(lambda: sign in tmux.text(), PATIENCE_S)

        tmux.keys("C-c")
        wait_until(lambda: "ended with 130" in tmux.text(), 60)

        assert NEXT not in tmux.text()


def test_terminal_that_is_closed_ends_the_demo(
    env: dict[str, str], wait_until: Callable[..., None], folder: Path
) -> None:
    with terminal(env) as tmux:
        tmux.keys(str(DEMO), "Enter")
        wait_until(lambda: _processes(folder), PATIENCE_S)


def test_sigterm_ends_it_as_well(env: dict[str, str], wait_until: Callable[..., None], folder: Path) -> None:
    with subprocess.Popen([DEMO], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        wait_until(lambda: _processes(folder), PATIENCE_S)
        demo.send_signal(signal.SIGTERM)

        assert demo.wait(60) == 128 + signal.SIGTERM


def test_interpreter_that_does_not_run_is_told_with_the_remedy(env: dict[str, str]) -> None:
    done = subprocess.run(
        [DEMO], env=env | {"PYTHON": "/nowhere/python"}, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("demo: needs Python 3.11 or newer; none of these is one that runs: /nowhere/python.")
    assert len(done.stderr.splitlines()) == 1
