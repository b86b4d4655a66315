"""Pictures of races: their files and their texts."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import pytest

from racepool.commands.pictures.album import Album, file_name_of
from racepool.protocol.errors import PoolError
from racepool.races.money_row import PollRows
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from tests.commands.pictures.told_polls import Tote, transformed
from tests.commands.replay.building import poll, row
from tests.hostile import HOSTILE, is_harmless
from tests.running import ROOT

PNG = b"\x89PNG\r\n\x1a\n"


def race(
    race_id: str = "race-1", *, runners: int = 3, minutes: Iterable[float] = (90, 10, 2, 1, -0.5)
) -> list[PollRows]:
    return [
        poll(
            *(
                row(
                    1_000 * number + 10 * index, race=race_id, entrant=f"e{number}", minutes_left=left,
                    runner_number=number, runner_name=f"Runner $N{number}$", is_scratched=number == 2,
                )
                for number in range(1, runners + 1)
            ),
            race=race_id,
        )
        for index, left in enumerate(minutes)
    ]  # fmt: skip


def draw(album: Album, *races: list[PollRows]) -> list[str]:
    return album.draw_races(races, lambda: None)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_one_race_is_drawn_into_a_file_of_any_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"race.{suffix}"

    assert draw(Album(path), race()) == []
    assert path.read_bytes().startswith({"png": PNG, "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


def test_picture_names_each_runner_but_the_scratched_and_its_money(tmp_path: Path) -> None:
    path = tmp_path / "race.svg"

    with mpl.rc_context({"svg.fonttype": "none"}):
        draw(Album(path), race(runners=24))

    text = path.read_text()
    shown = [number for number in range(1, 25) if f">{number}  Runner $N{number}$  $" in text]
    assert shown == [number for number in range(1, 25) if number != 2]
    assert "24  Runner $N24$  $240<" in text
    assert "Kōwhai Bend, 17 July 2025, 12:15 NZST" in text
    ticks = ["60", "45", "30", "20", "15", "10", "5", "4", "3", "2", "1", "start"]
    assert [tick for tick in ticks if f">{tick}<" not in text] == []
    assert "minutes to the start" in text


def test_last_minutes_alone_have_ticks_too(tmp_path: Path) -> None:
    path = tmp_path / "race.svg"

    with mpl.rc_context({"svg.fonttype": "none"}):
        draw(Album(path), race(minutes=(1.5, 1.25, 1)))

    assert ">1.2<" in path.read_text()
    assert ">start<" not in path.read_text()


def test_no_two_runners_of_a_large_field_look_alike(tmp_path: Path) -> None:
    path = tmp_path / "race.svg"

    draw(Album(path), race(runners=24))

    lines = [line for line in path.read_text().split("<path ") if "stroke-width: 1.8" in line]
    looks = {line.partition('style="')[2].partition('"')[0] for line in lines}
    assert len(lines) == len(looks) == 23


def test_each_race_is_drawn_into_a_folder_which_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pictures"

    assert draw(Album(folder), race("ab/1"), race("ab-2")) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "R3-Otterby-Plate-ab-1-055578d4.png",
        "R3-Otterby-Plate-ab-2.png",
    ]


@pytest.mark.parametrize("text", [*HOSTILE.values(), "../../x", "/etc/x", ".", "-rf", "語" * 500, "r/1", "x" * 500])
def test_file_of_a_picture_has_a_plain_name_of_its_own(tmp_path: Path, text: str) -> None:
    name = file_name_of(text, text)

    assert re.fullmatch(r"\w[\w-]*", name)
    (tmp_path / f".{name}.png.partial").touch()
    assert len({file_name_of(text, each) for each in (text, f"{text}-", f"{text}/", "x" * 499)}) == 4


@pytest.mark.parametrize("text", [*HOSTILE.values(), "$\\frac$", "語" * 500, "<b>&"], ids=ascii)
def test_picture_takes_any_name(tmp_path: Path, text: str) -> None:
    rows = [poll(*(each.model_copy(update={"runner_name": text, "race_name": text, "meeting_name": text})
                   for each in at.rows), race="race-1") for at in race(runners=1)]  # fmt: skip
    path = tmp_path / "race.svg"

    with mpl.rc_context({"svg.fonttype": "none"}):
        assert draw(Album(path), rows) == []

    assert is_harmless(path.read_text())


def test_race_without_a_picture_is_told_and_the_others_are_drawn(tmp_path: Path) -> None:
    assert draw(Album(tmp_path), race("one", minutes=[1]), race("two")) == [
        "no picture: there is only one poll of Otterby Plate; a picture needs two"
    ]
    assert len(list(tmp_path.iterdir())) == 1


def test_polls_that_were_added_are_drawn_race_by_race(tmp_path: Path) -> None:
    polled_at = datetime(2025, 7, 17, tzinfo=UTC)
    album = Album(tmp_path)
    for name in ("thoroughbred", "harness"):
        body = (ROOT / "samples" / f"{name}.json").read_bytes()
        album.add(transform_race(RaceData.parse(body), polled_at=polled_at, previous=None))

    missing = album.draw()

    assert len(missing) == 2
    assert all("there is only one poll of" in line for line in missing)


def test_picture_is_the_same_whether_or_not_polls_had_a_previous_one(tmp_path: Path) -> None:
    holds = [{"a": 70, "b": 30}, None, {"a": 100}, {"a": 0, "b": 90}, {"a": 60, "b": 40}]
    totes = [Tote(12 - 3 * index, each, win=1_000 + 500 * index) for index, each in enumerate(holds)]

    for name in ("chained", "alone"):
        album = Album(tmp_path / f"{name}.png")
        for result in transformed(totes, is_chained=name == "chained"):
            album.add(result)
        assert album.draw() == []

    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "chained.png").read_bytes()


def test_several_races_are_no_single_picture(tmp_path: Path) -> None:
    album = Album(tmp_path / "race.png")
    album.require_one(1)

    with pytest.raises(PoolError, match=r"there are 2 races; name a folder for a picture of each, or so$"):
        album.require_one(2, ", or so")


def test_kind_of_picture_that_is_not_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"race\.gif: name a file ending in \.png, \.svg, \.pdf, or a folder"):
        Album(tmp_path / "race.gif")


def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PoolError, match=r"No such file or directory"):
        draw(Album(tmp_path / "no" / "race.png"), race())
    with pytest.raises(PoolError, match=r"Not a directory"):
        draw(Album(tmp_path / "file" / "pictures"), race())
