import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgpack
import pytest

from racepool.protocol.errors import InvalidRaceError, SettingsError
from racepool.protocol.failures import pack_size, unpack_field_errors, unpack_raised, unpack_size
from racepool.protocol.messages import Outcome
from racepool.races.payloads import pack_request, pack_result, unpack_result
from racepool.races.previous_amounts import PreviousAmounts
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.worker.execution import MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS, Execution, Transform, load_transform

AT = datetime(2026, 1, 31, tzinfo=UTC)
LIMIT = 100_000
Race = Callable[..., dict[str, Any]]


@pytest.fixture
def payload(race: Race) -> bytes:
    return pack_request(race(race_id="r1"), AT, None).payload()


def run(transform: Transform, payload: bytes, limit: int = LIMIT) -> tuple[Outcome, bytes]:
    return Execution(transform).run(payload, limit)


def returning(value: object) -> Transform:
    return lambda *_, **__: value


def raising(error: BaseException) -> Transform:
    def transform(*_: object, **__: object) -> None:
        raise error

    return transform


def raised(transform: Transform, payload: bytes) -> tuple[str, str, str]:
    outcome, packed = run(transform, payload)
    assert outcome is Outcome.RAISED
    return unpack_raised(packed)


def test_race_is_transformed(race: Race, payload: bytes) -> None:
    execution = Execution(transform_race)

    outcome, packed = execution.run(payload, LIMIT)

    assert outcome is Outcome.OK
    assert unpack_result(packed) == transform_race(RaceData.parse(race(race_id="r1")), polled_at=AT)
    assert execution.race_id == "r1"


def test_transform_is_called_as_the_contract_says(race: Race) -> None:
    seen: list[object] = []
    previous = PreviousAmounts("r1", {"e": (1, 2)})

    def transform(*arguments: object, **options: object) -> None:
        seen.extend([arguments, options])

    outcome, _ = run(transform, pack_request(race(), AT.astimezone(timezone(timedelta(hours=13))), previous).payload())

    assert outcome is Outcome.OK
    assert seen == [(RaceData.parse(race()),), {"polled_at": AT, "previous": previous}]


@pytest.mark.parametrize("value", [None, 1, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": None}}, True])
def test_plain_results_travel(payload: bytes, value: object) -> None:
    outcome, packed = run(returning(value), payload)

    assert outcome is Outcome.OK
    assert unpack_result(packed) == value


def test_model_travels_as_plain_data(race: Race, payload: bytes) -> None:
    outcome, packed = run(returning(RaceData.parse(race())), payload)

    assert outcome is Outcome.OK
    assert unpack_result(packed) == RaceData.parse(race()).model_dump(mode="json")


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**70, "\ud800", AT])
def test_result_that_cannot_travel_is_the_transforms_error(payload: bytes, value: object) -> None:
    outcome, packed = run(returning(value), payload)

    assert outcome is Outcome.RAISED
    assert unpack_raised(packed)[0] in {"TypeError", "OverflowError", "UnicodeEncodeError"}


def test_result_that_holds_itself_is_the_transforms_error(payload: bytes) -> None:
    endless: list[object] = []
    endless.append(endless)

    assert raised(returning(endless), payload)[:2] == ("ValueError", "the result is nested more than 64 levels deep")


def test_result_beyond_the_limit_tells_its_size(payload: bytes) -> None:
    outcome, packed = run(returning(bytes(LIMIT)), payload)

    assert outcome is Outcome.TOO_LARGE
    assert unpack_size(packed) > LIMIT
    assert run(returning(bytes(LIMIT - 100)), payload)[0] is Outcome.OK


def test_result_may_be_exactly_as_large_as_the_limit(payload: bytes) -> None:
    size_bytes = len(pack_result(bytes(1_000)))

    assert run(returning(bytes(1_000)), payload, size_bytes)[0] is Outcome.OK
    assert run(returning(bytes(1_000)), payload, size_bytes - 1) == (Outcome.TOO_LARGE, pack_size(size_bytes))


def test_exception_travels_as_data(payload: bytes) -> None:
    kind, message, traceback = raised(raising(KeyError("x")), payload)

    assert (kind, message) == ("KeyError", "'x'")
    assert traceback.startswith("Traceback (most recent call last)")
    assert "test_execution.py" in traceback


def test_exception_of_a_module_is_named_in_full(payload: bytes) -> None:
    class Own(Exception):  # noqa: N818
        pass

    kind, _, _ = raised(raising(Own("no")), payload)

    assert kind.endswith("test_exception_of_a_module_is_named_in_full.<locals>.Own")
    assert "test_execution" in kind.partition("<locals>")[0]


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), MemoryError(), BaseException("b")],
)
def test_no_exception_of_the_transform_ends_the_worker(payload: bytes, error: BaseException) -> None:
    assert raised(raising(error), payload)[0].rpartition(".")[2] == type(error).__name__


def test_recursion_without_end_is_the_transforms_error(payload: bytes) -> None:
    def endless(depth: int) -> int:  # without *args: CPython 3.13.0 forgets to count such calls, and crashes
        return endless(depth + 1) + 1

    kind, _, traceback = raised(lambda *_, **__: endless(0), payload)

    assert kind == "RecursionError"
    assert len(traceback) <= MAX_TRACEBACK_CHARS


@pytest.mark.parametrize("inner", [ValueError("in __str__"), SystemExit(1), RecursionError()])
def test_exception_without_a_text_is_still_reported(payload: bytes, inner: BaseException) -> None:
    class Hostile(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise inner

    kind, message, _ = raised(raising(Hostile()), payload)

    assert kind.endswith("Hostile")
    assert message == "(its text cannot be shown)"


def test_long_and_odd_texts_are_cut_and_travel(payload: bytes) -> None:
    _, message, traceback = raised(raising(ValueError("\ud800" + "x" * 100_000)), payload)

    assert message == "\\ud800" + "x" * (MAX_MESSAGE_CHARS - 1)
    assert len(traceback) <= MAX_TRACEBACK_CHARS + 5
    assert traceback.endswith("x\n")


def test_group_and_cause_are_in_the_traceback(payload: bytes) -> None:
    def transform(*_: object, **__: object) -> None:
        raise ExceptionGroup("all", [ValueError("one")]) from KeyError("cause")

    kind, _, traceback = raised(transform, payload)

    assert kind == "ExceptionGroup"
    assert "KeyError: 'cause'" in traceback
    assert "ValueError: one" in traceback


def test_invalid_race_names_each_path(race: Race) -> None:
    broken = race() | {"name": 5, "race_date_nz": "tomorrow"}
    execution = Execution(returning(None))

    outcome, packed = execution.run(pack_request(broken, AT, None).payload(), LIMIT)

    assert outcome is Outcome.INVALID_RACE
    assert {error.path for error in unpack_field_errors(packed)} == {"name", "race_date_nz"}
    assert execution.race_id is None


def test_invalid_race_of_the_transforms_own_is_one_too(payload: bytes) -> None:
    outcome, packed = run(raising(InvalidRaceError([("entrants", "are too few")])), payload)

    assert outcome is Outcome.INVALID_RACE
    assert unpack_field_errors(packed) == [("entrants", "are too few")]


def test_invalid_race_of_a_transform_may_say_it_with_whatever_it_has(payload: bytes) -> None:
    for message in (ValueError("bad odds"), InvalidRaceError, AT, 2**70):
        outcome, packed = run(raising(InvalidRaceError([("odds", message)])), payload)  # type: ignore[list-item]
        assert (outcome, unpack_field_errors(packed)) == (Outcome.INVALID_RACE, [("odds", str(message))])


class OwnKindError(InvalidRaceError):
    def __init__(self) -> None:
        ValueError.__init__(self, "of our own")


def test_invalid_race_that_tells_no_rule_is_an_error_of_the_transform(payload: bytes) -> None:
    assert raised(raising(OwnKindError()), payload)[1] == "of our own"


HOSTILE_BODIES: list[object] = [
    b"", b"null", b"[]", b"{", b"\xff\xfe", b'"text"', b"1e999", b"[" * 100_000, b'{"a":' * 2000, b"NaN",
    {}, {"data": {}}, {"data": None}, {"id": []}, {"id": "\x00" * 10}, {"entrants": [[]] * 100},
    {"x" * 50_000: 1}, {"entrants": [{"x" * 50_000: {}}]},
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE_BODIES, ids=lambda body: str(body)[:20])
def test_hostile_race_is_invalid_and_its_answer_small(body: Any) -> None:  # noqa: ANN401
    outcome, packed = run(transform_race, pack_request(body, AT, None).payload())

    assert outcome is Outcome.INVALID_RACE
    assert unpack_field_errors(packed)
    assert len(packed) <= LIMIT


HOSTILE_PAYLOADS = [
    b"", b"\xc1", b"\x93", msgpack.packb([]), msgpack.packb({}), msgpack.packb([1, 2, 3, 4]),
    msgpack.packb(["json", 0, None, "text"]), msgpack.packb(["pickle", 0, None, b""]),
    msgpack.packb(["json", 1.5, None, b"{}"]), msgpack.packb(["json", 2**62, None, b"{}"]),
    msgpack.packb(["json", 0, 5, b"{}"]), msgpack.packb(["json", 0, ["r", {"e": [1]}], b"{}"]),
    msgpack.packb(["json", 0, ["r", {"e": 1}], b"{}"]), msgpack.packb([None, None, None, None]),
    msgpack.packb(msgpack.ExtType(5, b"x")), b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\xff" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE_PAYLOADS, ids=lambda payload: payload[:12].hex())
def test_hostile_payload_is_an_invalid_race(payload: bytes) -> None:
    outcome, packed = run(transform_race, payload)

    assert outcome is Outcome.INVALID_RACE
    assert unpack_field_errors(packed)


def test_race_id_is_that_of_the_last_race_only(race: Race) -> None:
    execution = Execution(returning(None))
    execution.run(pack_request(race(race_id="r1"), AT, None).payload(), LIMIT)

    execution.run(b"", LIMIT)

    assert execution.race_id is None


# --- load_transform ---------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the module `told` with this text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "told", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str) -> None:
        (tmp_path / "told.py").write_text(text)

    return write


def test_transform_is_found_by_its_path() -> None:
    assert load_transform("racepool.races.transform:transform_race") is transform_race


@pytest.mark.parametrize("path", ["", "module", ":function", "module:", "racepool.races.transform.transform_race"])
def test_path_of_another_form_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match=r"RACEPOOL_TRANSFORM=.*package\.module:function"):
        load_transform(path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module_at_all:f", "No module named 'no_such_module_at_all'; install it, or set PYTHONPATH"),
        ("racepool.races.transform:no_such_function", "no attribute 'no_such_function'"),
        ("racepool.races.transform:Class.method", r"no attribute 'Class\.method'"),
        ("racepool.races.transform:__doc__", "is not callable"),
        (".relative:f", "cannot be imported"),
    ],
)
def test_what_is_not_there_is_refused_by_name(path: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        load_transform(path)
    assert str(error.value).startswith(f"RACEPOOL_TRANSFORM={path}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:", "SyntaxError"),
        ("raise RuntimeError('at import')", r"RuntimeError\('at import'\)"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("from racepool.worker import no_such_name", "no_such_name"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("1 / 0", "division by zero"),
    ],
)
def test_module_that_fails_at_its_import_is_refused(module: Callable[[str], None], text: str, words: str) -> None:
    module(text)

    with pytest.raises(SettingsError, match=words):
        load_transform("told:f")


@pytest.mark.parametrize("limit", [1_024, 4_096, 100_000])
def test_what_a_failure_tells_keeps_to_the_payload_limit(race: Race, limit: int) -> None:
    failing = raising(ValueError("\U0001f40e" * 5_000))
    broken = race() | {"entrants": [{"entrantId": str(number), "name": "x" * 900} for number in range(500)]}

    for transform, given, expected in ((failing, race(), Outcome.RAISED), (failing, broken, Outcome.INVALID_RACE)):
        outcome, packed = run(transform, pack_request(given, AT, None).payload(), limit)

        assert outcome is expected
        assert 50 < len(packed) <= limit
