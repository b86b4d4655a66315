"""The lines that a replay prints without a terminal."""

import re
import sys

import pytest

from racepool.commands.replay.progress import PLAIN_EVERY_S, progress


def test_line_comes_seldom_and_its_rate_is_that_of_this_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("racepool.commands.replay.progress.time.monotonic", lambda: now)
    assert not sys.stderr.isatty()

    with progress("replaying", "polls", total=1_000, done=900) as advance:
        now += PLAIN_EVERY_S / 2
        advance()
        assert capsys.readouterr().err == ""
        now += PLAIN_EVERY_S / 2
        for _ in range(9):
            advance()

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"racepool: replaying: 902 of 1,000 polls, 0/s, 245 s left", lines[0])
