from datetime import UTC, datetime

from rich.console import Console

from racepool.commands.display import race_table
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from tests.running import ROOT


def test_names_of_a_file_do_not_speak_to_the_terminal() -> None:
    body = (ROOT / "samples" / "harness.json").read_bytes()
    name = RaceData.parse(body).entrants[0].name
    told = body.replace(name.encode(), rb"\u001b]0;title\u001b\\\\ \u001b[2J [red]")
    screen = Console(width=240)

    with screen.capture() as captured:
        screen.print(race_table(transform_race(RaceData.parse(told), polled_at=datetime.now(UTC)), plain=True))

    assert r"\x1b]0;title\x1b" in captured.get()
    assert "[red]" in captured.get()
    assert "\x1b" not in captured.get()
