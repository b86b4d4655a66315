"""The lock on a run directory, and the folders that killed local pools left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from racepool.supervision.run_directory import hold, sweep

NAME = "racepool-{pid}-0123abcd"


@pytest.fixture
def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def left(path: Path, age_s: float = 3600.0) -> Path:
    (path / "dead").mkdir(parents=True)
    (path / "dead" / "task").write_text("a body")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_lock_is_taken_once_and_lives_as_long_as_its_last_descriptor(tmp_path: Path) -> None:
    first = hold(tmp_path)
    assert first is not None
    heir = os.dup(first)

    os.close(first)
    assert hold(tmp_path) is None
    os.close(heir)
    again = hold(tmp_path)
    assert again is not None
    os.close(again)


def test_lock_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(OSError, match="link"):
        hold(tmp_path / "link")


def test_folder_of_a_pool_whose_processes_are_gone_is_removed(tmp_path: Path, ended_pid: int) -> None:
    folder = left(tmp_path / NAME.format(pid=ended_pid))
    (tmp_path / "beside").write_text("somebody's")
    (folder / "link").symlink_to(tmp_path)
    os.utime(folder, (time.time() - 3600,) * 2)

    sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["beside"]


@pytest.mark.parametrize("name", ["racepool-{pid}-notes", "xracepool-{pid}-0123abcd", "racepool--0123abcd", "racepool"])
def test_folder_of_another_name_is_left_alone(tmp_path: Path, ended_pid: int, name: str) -> None:
    folder = left(tmp_path / name.format(pid=ended_pid))

    sweep(tmp_path)

    assert folder.exists()


def test_folder_of_a_pool_that_may_live_is_left_alone(
    tmp_path: Path, ended_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = left(tmp_path / NAME.format(pid=os.getpid()))
    sweep(tmp_path)
    assert alive.exists(), "its maker lives"

    folder = left(tmp_path / NAME.format(pid=ended_pid))
    held = hold(folder)
    assert held is not None
    sweep(tmp_path)
    assert folder.exists(), "it is locked: by a pool in another container"
    os.close(held)

    os.utime(folder)
    sweep(tmp_path)
    assert folder.exists(), "it has just been made"

    os.utime(folder, (time.time() - 3600,) * 2)
    own = os.geteuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    sweep(tmp_path)
    assert folder.exists(), "it is another user's"


def test_link_in_the_place_of_a_folder_is_left_alone(tmp_path: Path, ended_pid: int) -> None:
    target = left(tmp_path / "target")
    link = tmp_path / NAME.format(pid=ended_pid)
    link.symlink_to(target)
    os.utime(link, (time.time() - 3600,) * 2, follow_symlinks=False)

    sweep(tmp_path)

    assert (target / "dead" / "task").exists()
    assert link.is_symlink()
