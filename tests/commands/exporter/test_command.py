"""The exporter under supervisord, which restarts it at once."""

import time

import pytest

from racepool.commands.exporter import command
from racepool.commands.exporter.command import ExporterError, _throttled


@pytest.mark.parametrize("is_supervised", [True, False])
def test_error_ends_a_supervised_exporter_only_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, *, is_supervised: bool
) -> None:
    throttle_s = 0.3 if is_supervised else 60.0
    monkeypatch.setattr(command, "THROTTLE_S", throttle_s)
    monkeypatch.delenv("SUPERVISOR_ENABLED", raising=False)
    if is_supervised:
        monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    began_at = time.monotonic()

    with pytest.raises(ExporterError), _throttled():
        raise ExporterError("it cannot start")

    assert (time.monotonic() - began_at >= throttle_s) is is_supervised
