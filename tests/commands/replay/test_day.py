"""The files of a day are found, read once, and put in order."""

import errno
import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from racepool.commands.replay.day import Day, UnreadableFileError, body_in, body_of, poll_files, read_day
from racepool.protocol.errors import PoolError

LIMIT = 10_000


def write(path: Path, race: str = "r-1", *, at: str | None = None, number: int | None = None) -> Path:
    header = {} if at is None else {"generated_time": at}
    text = json.dumps({"header": header, "data": {"race": {"event_id": race, "race_number": number}}})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def read(*files: Path) -> Day:
    return read_day(files, LIMIT, lambda: None)


def names(day: Day, race: str = "r-1") -> list[str]:
    return [poll.path.name for poll in day.chains[race]]


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path: Path) -> None:
    found = [write(tmp_path / name) for name in ("b.json", "deep/er/a.json.gz", "c.json")]
    write(tmp_path / "notes.txt")
    named = write(tmp_path / "elsewhere" / "poll.capture")

    assert poll_files([tmp_path, named]) == sorted([*found, named])


def test_folder_that_cannot_be_read_is_told_before_anything_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "open" / "a.json")
    write(tmp_path / "closed" / "b.json")
    scandir = os.scandir

    def refused(folder: str) -> object:  # root could read it
        if folder.endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)

    with pytest.raises(PoolError, match=f"{tmp_path}/closed: Permission denied; make it readable"):
        poll_files([tmp_path])


def test_file_that_is_given_twice_is_one(tmp_path: Path) -> None:
    poll = write(tmp_path / "a.json")

    assert poll_files([tmp_path, poll, tmp_path / ".." / tmp_path.name / "a.json"]) == [
        tmp_path / ".." / tmp_path.name / "a.json"
    ]


def test_polls_are_in_the_order_of_their_instants_whatever_their_names_and_ages(tmp_path: Path) -> None:
    third = write(tmp_path / "a.json", at="2025-07-17T00:03:00Z")
    first = write(tmp_path / "b.json", at="2025-07-17T12:01:00+12:00")
    second = write(tmp_path / "c-20250717T000200Z.json")
    os.utime(first, (2_000_000_000, 2_000_000_000))

    assert names(read(third, first, second)) == ["b.json", "c-20250717T000200Z.json", "a.json"]


def test_name_says_when_it_was_polled_rather_than_the_response(tmp_path: Path) -> None:
    day = read(write(tmp_path / "20250717T001500Z.json", at="2025-07-17T00:14:00Z"))

    assert day.chains["r-1"][0].polled_at == datetime(2025, 7, 17, 0, 15, tzinfo=UTC)


def test_polls_of_one_instant_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = [write(tmp_path / name, at="2025-07-17T00:15:00Z") for name in ("b.json", "a.json")]

    assert names(read(*files)) == ["a.json", "b.json"]


def test_what_is_no_poll_is_kept_with_its_reason(tmp_path: Path) -> None:
    timeless = write(tmp_path / "timeless.json")
    torn = tmp_path / "torn.json.gz"
    torn.write_bytes(gzip.compress(b'{"id": "x"}' * 99)[:-9])
    encoded = tmp_path / "encoded.json"
    encoded.write_text('{"id": "r-1"}', encoding="utf-16")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (LIMIT + 1))
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 50 * LIMIT))
    missing = tmp_path / "missing.json"

    day = read(timeless, torn, encoded, large, bomb, missing)

    assert day.chains == {}
    reasons = {unread.path.name: unread.reason for unread in day.unread}
    assert "does not say when it was polled" in reasons["timeless.json"]
    assert "rename it" in reasons["timeless.json"]
    assert "no whole gzip file" in reasons["torn.json.gz"]
    assert "is text in UTF-16" in reasons["encoded.json"]
    assert reasons["large.json"] == "is larger than 10,000 bytes; raise RACEPOOL_PAYLOAD_LIMIT"
    assert "is larger than 10,000 bytes when it is unpacked; raise RACEPOOL_PAYLOAD_LIMIT" in reasons["bomb.json.gz"]
    assert reasons["missing.json"] == "No such file or directory"


def test_compressed_poll_is_the_same_poll(tmp_path: Path) -> None:
    plain = write(tmp_path / "a" / "20250717T001500Z.json")
    packed = write(tmp_path / "b" / "20250717T001500Z.json.gz")

    marked = tmp_path / "c" / "20250717T001500Z.json"
    misnamed = tmp_path / "d" / "20250717T001500Z.json.gz"
    for path, content in ((marked, b"\xef\xbb\xbf" + plain.read_bytes()), (misnamed, plain.read_bytes())):
        path.parent.mkdir()
        path.write_bytes(content)

    for each in (packed, marked, misnamed):
        assert body_in(each, LIMIT) == body_in(plain, LIMIT)
        assert read(each).fingerprint == read(plain).fingerprint


def test_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="No such file"):
        body_in(tmp_path / "gone.json", LIMIT)


def test_poll_that_changed_since_the_day_was_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "20250717T001500Z.json")
    (poll,) = read(path).chains["r-1"]
    assert body_of(poll, LIMIT) == path.read_bytes()

    write(path, number=8)

    with pytest.raises(UnreadableFileError, match="has changed since the replay began"):
        body_of(poll, LIMIT)


def test_fingerprint_is_that_of_what_and_when(tmp_path: Path) -> None:
    def printed(folder: str, race: str = "r-1", at: str = "2025-07-17T00:15:00Z", number: int = 1) -> str:
        return read(write(tmp_path / folder / "x.json", race, at=at, number=number)).fingerprint

    assert printed("a") == printed("b")
    assert len({printed("a"), printed("c", race="r-2"), printed("d", number=2)}) == 3
    assert printed("a") != printed("e", at="2025-07-17T00:16:00Z")


@pytest.mark.parametrize(
    ("called", "races"),
    [(["R7"], ["abc-1"]), (["r7"], ["abc-1"]), (["abc"], ["abc-1", "abc-2"]), (["abc-2", "R7"], ["abc-1", "abc-2"])],
)
def test_races_are_chosen_by_number_or_by_how_the_id_begins(
    tmp_path: Path, called: list[str], races: list[str]
) -> None:
    files = [
        write(tmp_path / f"{index}-20250717T001500Z.json", race, number=number)
        for index, (race, number) in enumerate([("abc-1", 7), ("abc-2", 8), ("def", 9)])
    ]

    assert sorted(read(*files).of_races(called).chains) == races


def test_race_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="R9"):
        read(write(tmp_path / "20250717T001500Z.json", number=7)).of_races(["R7", "R9"])
