import time
from pathlib import Path

import pytest

from client import monitoring
from client.monitoring import fetch_stats
from protocol.errors import BrokerUnavailableError
from protocol.settings import Settings

TIMEOUT_S = 0.2


def test_question_that_cannot_be_asked_waits_no_longer_than_one_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(monitoring, "connect", lambda *_: None)  # as libzmq leaves a socket whose key was refused
    started_at = time.monotonic()

    with pytest.raises(BrokerUnavailableError, match="no broker answered at ipc"):
        fetch_stats(Settings(dir=tmp_path), TIMEOUT_S)

    assert TIMEOUT_S <= time.monotonic() - started_at < 50 * TIMEOUT_S
