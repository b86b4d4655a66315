import json

import pytest

from racepool.protocol.visible import visible, visible_json, visible_lines
from tests.hostile import HOSTILE, is_harmless

kinds = pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))


@kinds
def test_text_is_shown_on_one_line_that_steers_nothing(text: str) -> None:
    assert visible(text).isprintable()
    assert "\N{REPLACEMENT CHARACTER}" not in visible(text), "it says which character is there"
    assert visible(visible(text)) == visible(text)


@kinds
def test_lines_stay_apart_and_only_the_first_one_stands_at_the_margin(text: str) -> None:
    assert is_harmless(f"racepool: {visible_lines(text)}")


@kinds
@pytest.mark.parametrize("indent", [None, 2])
def test_json_keeps_its_value(text: str, indent: int | None) -> None:
    whole = json.dumps({"id": [text]}, ensure_ascii=False, indent=indent)

    assert json.loads(visible_json(whole)) == {"id": [text]}
    assert all(line.isprintable() for line in visible_json(whole).split("\n"))


def test_what_is_printable_stays_as_it_is() -> None:
    plain = 'Mōkai Flyer [red] $x$ \\ "ok" 語 \U0001f40e'

    assert visible(plain) == visible_lines(plain) == visible_json(plain) == plain


def test_escapes_are_those_of_python() -> None:
    assert visible("r1\x1b\n\u202e\U000e0041é") == r"r1\x1b\n\u202e\U000e0041é"
