"""The survey's probes: each has a bounded time, and an error in one is not lost."""

import threading
import time

import pytest

from racepool.commands.doctor import survey
from racepool.commands.doctor.survey import Overdue, TimedProbe


def test_probe_that_does_not_end_is_overdue_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "PATIENCE_S", 0.05)
    overdue, never = Overdue(), threading.Event()

    began_at = time.monotonic()
    stuck = TimedProbe("disk", lambda: never.wait(20), overdue)
    quick = TimedProbe("lock", lambda: "free", overdue)
    found = (stuck.result(), quick.result())
    took_s = time.monotonic() - began_at
    never.set()

    assert found == (None, "free")
    assert overdue.names == ["disk"]
    assert took_s < 10


def test_error_of_a_probe_is_raised_where_its_fact_is_wanted() -> None:
    def fail() -> None:
        raise RuntimeError("broken probe")

    overdue = Overdue()

    with pytest.raises(RuntimeError, match="broken probe"):
        TimedProbe("lock", fail, overdue).result()
    assert overdue.names == []
