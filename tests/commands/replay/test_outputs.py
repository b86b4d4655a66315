"""Where the rows of a replay go, as far as no database is needed to tell."""

from dataclasses import replace
from pathlib import Path

import pytest

from racepool.commands.replay.day import Day
from racepool.commands.replay.outputs import DatabaseOutput
from racepool.protocol.errors import PoolError, StoreError
from racepool.protocol.settings import Settings
from tests.commands.replay.building import chain

SETTINGS = Settings(dir=Path("/run/racepool"))


def database(url: str, *chosen: str) -> DatabaseOutput:
    return DatabaseOutput(url, SETTINGS, chosen)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:secret@db.example:5433/racing?sslmode=require", "postgresql://db.example:5433/racing"),
        ("postgres://db.example/racing?user=me&password=secret", "postgresql://db.example/racing"),
        ("postgresql://me:s%40%2Fcret@/a%2Fb?host=/run/postgresql", "postgresql:///a%2Fb?host=/run/postgresql"),
        ("postgresql://", "postgresql:///"),
    ],
)
def test_database_is_named_without_user_and_password(url: str, name: str) -> None:
    assert str(database(url)) == name


@pytest.mark.parametrize("url", ["postgresql://me:sec@ret@host/racing", "postgresql://me:sec/ret@host/racing"])
def test_url_with_a_password_that_is_not_quoted_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        database(url).check()

    assert "sec" not in str(raised.value).replace("seconds", "")
    assert "ret" not in str(raised.value)


def test_each_database_and_each_choice_of_polls_has_a_checkpoint_of_its_own() -> None:
    url = "postgresql://me:secret@db.example/racing"

    others = [database(url), database(url, "/other"), database(url, "/day", "R1"), database(url + "2", "/day")]

    found = {output.checkpoint for output in [database(url, "/day"), *others]}
    assert len(found) == 5
    assert all(path and path.parent == SETTINGS.dir / "replay" and path.suffix == ".replay" for path in found)
    assert database(url.replace("secret", "changed"), "/day").checkpoint == database(url, "/day").checkpoint


def test_polls_of_the_same_race_and_instant_are_refused_and_named() -> None:
    first, second, third = chain("race-1", 3)
    day = Day({"race-1": (first, replace(second, polled_at=first.polled_at), third)}, ())

    with pytest.raises(PoolError, match=r"the same race and instant: race-1-0\.json and race-1-1\.json; leave one"):
        database("postgresql://db.example/racing").begin(day)
