import os
from pathlib import Path

import pytest

from racepool.commands.exporter.dead_view import DeadView
from racepool.protocol.errors import PoolError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "dead"
    made.mkdir()
    os.utime(made, (1, 1))
    return made


def test_directory_is_read_anew_only_after_a_change(directory: Path) -> None:
    view = DeadView(directory.parent)
    first = view.look()

    assert view.look() is first
    (directory / f"{'ab' * 16}.dead").write_bytes(b"rubbish")
    assert len(view.look().records) == 1


def test_change_of_this_very_second_is_not_relied_upon(directory: Path) -> None:
    view = DeadView(directory.parent)
    os.utime(directory)

    assert view.look() is not view.look()


def test_no_directory_is_no_dead_task(tmp_path: Path) -> None:
    assert DeadView(tmp_path).look().records == []


def test_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text("a file")

    with pytest.raises(PoolError, match="Not a directory"):
        DeadView(tmp_path).look()
