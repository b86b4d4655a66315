"""The heartbeats' decisions, without a socket or a thread."""

import pytest

from racepool.protocol.messages import Epoch, Id, Pong, ToHeartbeat, Who
from racepool.worker.core import Session
from racepool.worker.heartbeat import Beat, HeartbeatCore, OpenSocket

INTERVAL_S, LIVENESS_S = 0.25, 2.0
EPOCH, LATER_EPOCH = Epoch(b"epoch-01"), Epoch(b"epoch-02")
NEW, WELCOMED = Session(Id(b"session----00001")), Session(Id(b"session----00001"), EPOCH)
NEXT = Session(Id(b"session----00002"), LATER_EPOCH)


@pytest.fixture
def heartbeat() -> HeartbeatCore:
    """The heartbeats of a welcome worker, after the first one at 0."""
    core = HeartbeatCore(WELCOMED, 0.0, interval_s=INTERVAL_S, liveness_s=LIVENESS_S)
    assert core.on_tick(WELCOMED, 0.0) == [OpenSocket(), Beat(WELCOMED)]
    return core


def test_worker_beats_at_its_interval(heartbeat: HeartbeatCore) -> None:
    assert heartbeat.next_check() == INTERVAL_S
    assert heartbeat.on_tick(WELCOMED, INTERVAL_S - 0.01) == []
    assert heartbeat.on_tick(WELCOMED, INTERVAL_S) == [Beat(WELCOMED)]


def test_worker_beats_more_often_for_a_broker_with_a_short_liveness() -> None:
    hurried = Session(WELCOMED.id, EPOCH, beat_s=0.1)
    core = HeartbeatCore(hurried, 0.0, interval_s=INTERVAL_S, liveness_s=LIVENESS_S)
    core.on_tick(hurried, 0.0)

    assert core.next_check() == 0.1


def test_worker_that_is_not_welcomed_does_not_beat() -> None:
    core = HeartbeatCore(NEW, 0.0, interval_s=INTERVAL_S, liveness_s=LIVENESS_S)

    assert core.on_tick(NEW, 0.0) == [OpenSocket()]
    assert core.on_tick(NEW, INTERVAL_S) == []
    assert core.on_tick(WELCOMED, 2 * INTERVAL_S) == [Beat(WELCOMED)]


def test_socket_that_hears_nothing_is_replaced_and_used_at_once(heartbeat: HeartbeatCore) -> None:
    assert heartbeat.on_answer(Pong(EPOCH), 1.0) is None
    heartbeat.on_tick(WELCOMED, 1.0 + LIVENESS_S - 0.01)

    assert heartbeat.on_tick(WELCOMED, 1.0 + LIVENESS_S) == [OpenSocket(), Beat(WELCOMED)]


def test_next_session_beats_through_a_socket_of_its_own(heartbeat: HeartbeatCore) -> None:
    assert heartbeat.on_tick(NEXT, 0.1) == []
    assert heartbeat.on_tick(NEXT, INTERVAL_S) == [OpenSocket(), Beat(NEXT)]


@pytest.mark.parametrize("reply", [Who(), Pong(LATER_EPOCH)], ids=["unknown", "another-epoch"])
def test_session_that_the_broker_does_not_know_is_lost(heartbeat: HeartbeatCore, reply: ToHeartbeat) -> None:
    assert heartbeat.on_answer(reply, 0.1) == WELCOMED.id


def test_reply_to_the_last_session_says_nothing_of_the_next(heartbeat: HeartbeatCore) -> None:
    heartbeat.on_tick(NEXT, INTERVAL_S)

    assert heartbeat.on_answer(Pong(LATER_EPOCH), 0.3) is None
