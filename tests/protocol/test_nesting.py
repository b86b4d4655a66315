import sys
from collections import OrderedDict
from typing import Any

import pytest

from racepool.protocol.codec import pack, unpack
from racepool.protocol.nesting import MAX_NESTING, TooDeepError, check_json_nesting, read_json

BOUND = "is nested more than 64 levels deep"


def lists(levels: int) -> Any:  # noqa: ANN401
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def maps(levels: int) -> Any:  # noqa: ANN401
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def maps_with_number_keys(levels: int) -> Any:  # noqa: ANN401  # ormsgpack refuses them, so msgpack packs
    value: Any = 1
    for _ in range(levels):
        value = {1: value}
    return value


def ordered(levels: int) -> Any:  # noqa: ANN401
    value: Any = 1
    for _ in range(levels):
        value = OrderedDict(a=value)
    return value


SHAPES = [lists, maps, maps_with_number_keys, ordered]


@pytest.mark.parametrize("shape", SHAPES)
def test_value_with_as_many_levels_as_allowed_travels(shape: Any) -> None:  # noqa: ANN401
    assert unpack(pack(shape(MAX_NESTING))) == shape(MAX_NESTING)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        *[(shape, MAX_NESTING + 1) for shape in SHAPES],
        *[(shape, levels) for shape in SHAPES[:-1] for levels in (sys.getrecursionlimit(), 20_000)],
    ],
)
def test_value_with_one_level_more_is_not_packed(shape: Any, levels: int) -> None:  # noqa: ANN401
    with pytest.raises(TooDeepError, match=BOUND):
        pack(shape(levels))


def test_value_that_contains_itself_many_times_is_refused_at_once() -> None:
    value: list[Any] = []
    value += [value] * 100

    with pytest.raises(TooDeepError, match=BOUND):
        pack(value)


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 1_023, 2_000, 200_000])
@pytest.mark.parametrize("head", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_bytes_with_more_levels_are_not_unpacked(head: bytes, levels: int) -> None:
    with pytest.raises(ValueError, match=BOUND):
        unpack(head * levels + b"\xc0")


@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('["]", [0, ', "]]")], ids=["lists", "objects", "brackets"]
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_json_is_bounded_at_the_same_level(opening: str, closing: str, is_cut: bool) -> None:  # noqa: FBT001
    fitting = MAX_NESTING // len(closing)
    ending = "" if is_cut else closing

    check_json_nesting(opening * fitting + "1" + ending * fitting)
    for text in (opening * (fitting + 1) + "1" + ending * (fitting + 1), opening * 20_000):
        with pytest.raises(TooDeepError, match=BOUND):
            read_json(text.encode(), allow_partial=True)


@pytest.mark.parametrize("text", ['"' + "[" * 100 + '"', '"\\"' + "[" * 100 + '"', '{"a": "' + "[" * 100])
def test_brackets_in_a_text_are_no_levels(text: str) -> None:
    check_json_nesting(text)
    check_json_nesting(text.encode())
