import copy
import pickle
import re

import pytest

from racepool.protocol import errors
from racepool.protocol.errors import (
    BacklogFullError,
    BrokerUnavailableError,
    CrashedAttempt,
    FieldError,
    InvalidRaceError,
    PayloadTooLargeError,
    PoolBrokenError,
    PoolClosedError,
    PoolError,
    PoolForkedError,
    ProtocolMismatchError,
    SettingsError,
    StoreError,
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
)
from tests.hostile import HOSTILE, is_harmless

EXAMPLES: list[PoolError] = [
    InvalidRaceError([("entrants.0.runnerNumber", "must be a number"), ("", "is no race")], about="task 1 (race r-1)"),
    TransformError("task 1", "builtins.ZeroDivisionError", "division by zero", "Traceback: ..."),
    WorkerCrashedError("task 1", [CrashedAttempt("worker-0", None), CrashedAttempt("worker-1", 9)]),
    TaskTimeoutError("task 1", state="queued", timeout_s=60, reason="no broker for 3.2 s"),
    TaskTimeoutError("task 1", state="running", timeout_s=0.5),
    BacklogFullError("task 1: the broker's backlog is full", 100, 100),
    PayloadTooLargeError("task 1", 2048, 1024),
    PayloadTooLargeError("the result of task 1", 2048),
    BrokerUnavailableError("task 1: no broker answered"),
    ProtocolMismatchError("task 1", 1, 2),
    SettingsError("RACEPOOL_WORKERS=0: must be 1 or more"),
    PoolClosedError("the pool was shut down"),
    PoolForkedError("the future belongs to the parent"),
    PoolBrokenError("the I/O thread died"),
    StoreError("this store was closed"),
]


def test_tree_is_the_one_that_is_drawn() -> None:
    drawing = errors.__doc__ or ""
    drawn = {
        name: {also} - {""}
        for name, also in re.findall(r"^[├└]── (\w+)(?:[^(\n]*\(also (\w+)\))?", drawing, re.MULTILINE)
    }
    real = {
        kind.__name__: {base.__name__ for base in kind.__bases__} - {"PoolError"} for kind in PoolError.__subclasses__()
    }

    assert real == drawn


def test_examples_are_of_every_kind() -> None:
    assert {type(error) for error in EXAMPLES} == set(PoolError.__subclasses__())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_copy_of_an_error_is_whole(error: PoolError) -> None:
    error.add_note("from a test")

    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301  # our own
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    ("index", "says", "attributes"),
    [
        (
            0,
            ["task 1 (race r-1)", "entrants.0.runnerNumber: must be a number", "is no race"],
            {"about": "task 1 (race r-1)"},
        ),
        (1, ["task 1", "ZeroDivisionError", "division by zero", ".remote_traceback"], {"message": "division by zero"}),
        (2, ["task 1", "2 attempts", "worker-0, worker-1", "worker_lost"], {}),
        (
            3,
            ["task 1", "60 s while queued", "no broker for 3.2 s", "queue_timeout_s"],
            {"state": "queued", "timeout_s": 60},
        ),
        (4, ["task 1", "0.5 s while running", "killed", "run_timeout_s"], {"state": "running", "timeout_s": 0.5}),
        (5, ["task 1", "100 of 100", "raise the limit"], {"depth": 100, "limit": 100}),
        (6, ["2048 bytes", "1024", "RACEPOOL_PAYLOAD_LIMIT"], {"size_bytes": 2048, "limit_bytes": 1024}),
        (7, ["2048 bytes", "RACEPOOL_PAYLOAD_LIMIT"], {"size_bytes": 2048, "limit_bytes": None}),
        (9, ["version 1", "the broker 2", "install the same"], {"ours": 1, "theirs": 2}),
    ],
)
def test_message_says_what_happened_and_what_to_do(index: int, says: list[str], attributes: dict[str, object]) -> None:
    error = EXAMPLES[index]

    assert [phrase for phrase in says if phrase not in str(error)] == []
    assert {name: getattr(error, name) for name in attributes} == attributes


def test_broken_rules_are_pairs() -> None:
    error = InvalidRaceError([("a", "b")])

    assert error.errors == [FieldError("a", "b")] == [("a", "b")]


def test_long_list_of_broken_rules_is_cut_in_the_text_only() -> None:
    error = InvalidRaceError([(f"entrants.{index}", "is broken") for index in range(8)])

    assert "entrants.4: is broken (and 3 more);" in str(error)
    assert "entrants.5" not in str(error)
    assert len(error.errors) == 8


def test_deaths_are_told_one_by_one() -> None:
    error = WorkerCrashedError("task 1", [CrashedAttempt("worker-0", None)])

    assert [(attempt.worker, attempt.signal) for attempt in error.attempts] == [("worker-0", None)]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_message_shows_text_from_outside_escaped_and_the_attributes_keep_it(text: str) -> None:
    invalid = InvalidRaceError([(text, text)])
    raised = TransformError("task 1", text, text, text)
    errors = [
        invalid,
        raised,
        WorkerCrashedError("task 1", [CrashedAttempt(text, None)]),
        SettingsError(f"RACEPOOL_NAME={text}"),
        StoreError(text),
        BrokerUnavailableError(text),
    ]

    assert [error for error in errors if not is_harmless(f"racepool: {error}")] == []
    assert all(str(error).isprintable() for error in errors[:3]), "one line for each task"
    assert (invalid.errors[0], raised.type, raised.message) == ((text, text), text, text)
    assert str(copy.deepcopy(raised)) == str(raised)
