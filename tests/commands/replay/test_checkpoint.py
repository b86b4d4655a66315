"""What a checkpoint keeps after crashes, and which checkpoints are refused."""

from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from racepool.commands.replay.checkpoint import SUFFIX, Checkpoint, checkpoint_of
from racepool.commands.replay.poll import PollEntry
from racepool.protocol.errors import PoolError
from tests.commands.replay.building import failed, good, wins_of

ENTRIES = [good("a", 0, 100, 200), failed("b", 0), good("a", 1, 150), good("b", 1)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "day.parquet"


@pytest.fixture
def opened(output: Path) -> Iterator[Callable[..., Checkpoint]]:
    checkpoints: list[Checkpoint] = []

    def at(fingerprint: str = "this day", *, overwrite: bool = False) -> Checkpoint:
        checkpoints.append(Checkpoint.at(checkpoint_of(output), fingerprint, output=output, overwrite=overwrite))
        return checkpoints[-1]

    yield at
    for checkpoint in checkpoints:
        with checkpoint:
            pass


def written(checkpoint: Checkpoint) -> list[PollEntry]:
    """Writes ENTRIES; returns the entries that were there before."""
    with checkpoint:
        before = list(checkpoint.entries())
        for entry in ENTRIES:
            checkpoint.append(entry)
        return before


def test_what_was_written_is_there_for_the_next_run(opened: Callable[..., Checkpoint]) -> None:
    assert written(opened()) == []
    with opened() as checkpoint:
        assert list(checkpoint.entries()) == ENTRIES
        assert wins_of(checkpoint.polls_of("a")) == [100, 200, 150]
        assert wins_of(checkpoint.polls_of("b")) == wins_of(checkpoint.polls_of("c")) == []


def test_next_run_writes_on_and_finds_both_parts(opened: Callable[..., Checkpoint]) -> None:
    written(opened())
    with opened() as checkpoint:
        list(checkpoint.entries())
        checkpoint.append(good("a", 2, 170))
        assert wins_of(checkpoint.polls_of("a")) == [100, 200, 150, 170]
    with opened() as checkpoint:
        assert list(checkpoint.entries()) == [*ENTRIES, good("a", 2, 170)]


def test_checkpoint_lies_beside_whatever_the_output_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path / "pictures")

    places = {checkpoint_of(Path(name)) for name in (".", "../pictures", "../pictures/", str(tmp_path / "pictures"))}

    assert places == {tmp_path / f"pictures{SUFFIX}"}


def test_checkpoint_torn_anywhere_keeps_every_whole_line_before(
    output: Path, opened: Callable[..., Checkpoint]
) -> None:
    written(opened())
    path = checkpoint_of(output)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]

    for length in [*range(0, len(whole), 37), *ends, *(end - 1 for end in ends)]:
        path.write_bytes(whole[:length])
        with opened() as checkpoint:
            kept = list(checkpoint.entries())
            assert kept == ENTRIES[: max(0, sum(end <= length for end in ends) - 1)]
            for entry in ENTRIES[len(kept) :]:
                checkpoint.append(entry)
        assert path.read_bytes() == whole


def test_what_follows_a_damaged_line_is_done_again(output: Path, opened: Callable[..., Checkpoint]) -> None:
    written(opened())
    path = checkpoint_of(output)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0" * 20 + b"\n", *lines[3:]]))

    with opened() as checkpoint:
        assert list(checkpoint.entries()) == ENTRIES[:1]
    assert path.read_bytes() == b"".join(lines[:2])


def test_checkpoint_of_other_polls_is_refused_and_kept(output: Path, opened: Callable[..., Checkpoint]) -> None:
    written(opened())
    before = checkpoint_of(output).read_bytes()

    with pytest.raises(PoolError, match=r"day\.parquet\.replay is the checkpoint of other polls.*--overwrite"):
        opened("another day")

    assert checkpoint_of(output).read_bytes() == before


def test_checkpoint_of_other_polls_gives_way_where_that_is_wanted(opened: Callable[..., Checkpoint]) -> None:
    written(opened())

    with opened("another day", overwrite=True) as checkpoint:
        assert list(checkpoint.entries()) == []


def test_own_checkpoint_is_kept_even_where_others_would_give_way(opened: Callable[..., Checkpoint]) -> None:
    written(opened())

    with opened(overwrite=True) as checkpoint:
        assert list(checkpoint.entries()) == ENTRIES


def test_second_replay_of_the_same_output_is_refused(opened: Callable[..., Checkpoint]) -> None:
    with opened(), pytest.raises(PoolError, match="another replay is writing"):
        opened()


def test_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="No such file or directory"):
        Checkpoint.at(tmp_path / "no" / "day.replay", "this day", output="day", overwrite=False)


class SlowFile(FileIO):
    """Takes a few bytes of each write, as the kernel may."""

    def write(self, data: Any) -> int:  # noqa: ANN401  # any buffer
        return super().write(data[:7])


def test_write_that_takes_only_a_part_goes_on_with_the_rest(tmp_path: Path) -> None:
    with Checkpoint(SlowFile(tmp_path / "slow", "w+"), "this day") as checkpoint:
        for entry in ENTRIES:
            checkpoint.append(entry)

    lines = (tmp_path / "slow").read_bytes().splitlines()
    assert [PollEntry.model_validate_json(line) for line in lines] == ENTRIES


def test_full_disk_is_told_with_what_to_do() -> None:
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115  # the checkpoint closes it

    with (
        Checkpoint(full, "this day") as checkpoint,
        pytest.raises(PoolError, match=r"No space left on device.*the same command"),
    ):
        checkpoint.append(ENTRIES[0])


def test_removed_checkpoint_is_gone(output: Path, opened: Callable[..., Checkpoint]) -> None:
    with opened() as checkpoint:
        checkpoint.remove()

    assert not checkpoint_of(output).exists()


def test_temporary_one_works_alike_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Checkpoint.temporary("this day") as checkpoint:
        assert list(checkpoint.entries()) == []
        for entry in ENTRIES:
            checkpoint.append(entry)
        assert list(checkpoint.entries()) == ENTRIES
        checkpoint.append(good("a", 2, 170))
        assert wins_of(checkpoint.polls_of("a")) == [100, 200, 150, 170]
        checkpoint.remove()

    assert list(tmp_path.iterdir()) == []
