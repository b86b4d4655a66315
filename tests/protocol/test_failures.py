from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.protocol.errors import CrashedAttempt, FieldError
from racepool.protocol.failures import (
    BadPayloadError,
    pack_crashes,
    pack_field_errors,
    pack_raised,
    pack_size,
    unpack_array,
    unpack_crashes,
    unpack_field_errors,
    unpack_raised,
    unpack_size,
)

Unpack = Callable[[bytes], object]
UNPACKERS: list[Unpack] = [unpack_field_errors, unpack_raised, unpack_crashes, unpack_size, unpack_array]
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.builds(FieldError, st.text(), st.text())))
def test_broken_rules_survive(errors: list[FieldError]) -> None:
    assert unpack_field_errors(pack_field_errors(errors)) == errors


def test_broken_rules_are_bounded() -> None:
    assert len(unpack_field_errors(pack_field_errors([FieldError("path", "message")] * 5_000))) == 1_000


@given(st.text(), st.text(), st.text())
def test_exception_survives(type_: str, message: str, traceback: str) -> None:
    assert unpack_raised(pack_raised(type_, message, traceback)) == (type_, message, traceback)


def test_text_that_is_no_unicode_is_told_all_the_same() -> None:
    assert unpack_raised(pack_raised("ValueError", "bad \ud800", "")) == ("ValueError", "bad \\ud800", "")


@given(st.lists(st.builds(CrashedAttempt, st.text(), st.none() | st.integers(1, 64))))
def test_crashes_survive(attempts: list[CrashedAttempt]) -> None:
    assert unpack_crashes(pack_crashes(attempts)) == attempts


@given(st.integers(0, 2**63))
def test_size_survives(size_bytes: int) -> None:
    assert unpack_size(pack_size(size_bytes)) == size_bytes


@pytest.mark.parametrize("unpack", UNPACKERS)
@given(payload=st.binary(max_size=64) | ANYTHING.map(msgpack.packb))
def test_hostile_payload_is_refused_or_read(unpack: Unpack, payload: bytes) -> None:
    try:
        unpack(payload)
    except BadPayloadError:
        return


@pytest.mark.parametrize(
    ("unpack", "value"),
    [
        (unpack_field_errors, ["ab"]),
        (unpack_field_errors, [["path"]]),
        (unpack_field_errors, [1]),
        (unpack_field_errors, {"path": "message"}),
        (unpack_crashes, [["worker", 9, 9]]),
        (unpack_crashes, [None]),
        (unpack_raised, ["type", "message"]),
        (unpack_size, [None]),
        (unpack_size, ["many"]),
        (unpack_size, [True]),
        (unpack_size, [1, 2]),
        (unpack_array, msgpack.ExtType(1, b"x")),
    ],
)
def test_payload_of_another_shape_is_refused(unpack: Unpack, value: object) -> None:
    with pytest.raises(BadPayloadError):
        unpack(msgpack.packb(value))


def test_signal_that_is_none_is_unknown() -> None:
    assert unpack_crashes(msgpack.packb([["worker", "SIGKILL"]])) == [CrashedAttempt("worker", None)]
