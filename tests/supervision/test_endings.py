"""What is told when a program ends soon after its start."""

import json
import signal
from pathlib import Path

import pytest

from racepool.supervision.endings import AT_ONCE_S, PAUSE_S, SOON_S, WORDS_CHARS, Ending, Told, last_words

EXIT_3 = 3 << 8
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1\nImportError: no b\n'


def ending(group: str = "worker", *, lived_s: float = 0.4, status: int | None = EXIT_3, words: str = "no b") -> Ending:
    return Ending(f"{group}-0", group, lived_s, status, words)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (json.dumps({"event": "worker_refused", "reason": "X=y: no module"}), "X=y: no module"),
        (json.dumps({"event": "worker_failed", "exception": TRACEBACK}), "ImportError: no b"),
        (json.dumps({"event": "worker_failed", "exception": None}), "worker_failed"),
        (json.dumps({"event": "worker_ready", "level": "info"}), "worker_ready"),
        (f"older\n{TRACEBACK}\n\n", "ImportError: no b"),
        ("supervisor: couldn't exec /x/python: ENOENT\nsupervisor: child process was not spawned\n", "not spawned"),
        ("[1, 2]", "[1, 2]"),
        ("{broken", "{broken"),
        ("a\x1b]0;title\x07b\r\n", "a\\x1b]0;title\\x07b"),
        (json.dumps({"reason": "two\nlines \u202e"}), "two\\nlines \\u202e"),
        ("x" * 100_000, "x" * WORDS_CHARS),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_last_words_are_the_reason_in_the_last_line(written: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(written)

    assert last_words(tmp_path / "log").endswith(words)
    assert last_words(tmp_path / "log").isprintable()


def test_words_of_an_earlier_life_are_not_taken_for_its_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("the first life\n")
    first_bytes = log.stat().st_size

    assert last_words(log, first_bytes) == ""
    with log.open("a") as file:
        file.write("the second\n")
    assert last_words(log, first_bytes) == "the second"
    assert last_words(log, 10_000) == "the second", "the log was rotated"


def test_log_that_cannot_be_read_has_no_words(tmp_path: Path) -> None:
    assert [last_words(log) for log in (None, tmp_path, tmp_path / "none")] == ["", "", ""]
    (tmp_path / "log").write_bytes(b"\xff\xfe\x00")
    assert last_words(tmp_path / "log").isprintable()


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (ending(), "worker-0 ended 0.4 s after its start (exit status 3) and is started again; its last words: no b"),
        (ending(words=""), "it wrote nothing into its log"),
        (ending(status=signal.SIGSEGV), "(terminated by SIGSEGV)"),
        (ending(status=None, words="can't find command '/x'"), "worker-0 cannot be started: can't find command '/x'"),
    ],
)
def test_ending_says_how_and_why(ended: Ending, words: str) -> None:
    assert words in str(ended)


@pytest.mark.parametrize(
    ("lived_s", "status", "is_telling"),
    [
        (AT_ONCE_S - 0.1, 0, True),
        (AT_ONCE_S + 0.1, 0, False),  # a worker that was recycled
        (SOON_S - 0.1, EXIT_3, True),
        (SOON_S - 0.1, signal.SIGKILL, True),
        (SOON_S + 0.1, EXIT_3, False),
        (0.0, None, True),
    ],
)
def test_only_an_end_that_belongs_to_the_start_is_told(lived_s: float, status: int | None, *, is_telling: bool) -> None:
    assert Told().is_new(ending(lived_s=lived_s, status=status), 0.0) == is_telling


def test_reason_is_told_once_and_another_after_a_pause() -> None:
    told = Told()

    assert told.is_new(ending(), 0.0)
    assert not any(told.is_new(ending(lived_s=each / 10), float(each)) for each in range(1, 40))
    assert told.is_new(ending("broker"), 1.0), "each group for itself"
    assert not told.is_new(ending(words="no c"), PAUSE_S - 1)
    assert told.is_new(ending(words="no c"), PAUSE_S + 1)
