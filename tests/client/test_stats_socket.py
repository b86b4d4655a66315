"""The stats socket, asked by a client that never waits; the test plays the broker."""

from collections.abc import Iterator
from time import monotonic

import pytest
import zmq

from racepool.client.stats_socket import StatsSocket
from racepool.protocol import sockets
from racepool.protocol.processes import open_files

BOUND_MS = 5_000


@pytest.fixture
def broker(endpoint: str) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        bound.set(zmq.LINGER, 0)
        bound.set(zmq.RCVTIMEO, BOUND_MS)
        bound.bind(endpoint)
        yield bound


def test_answer_is_handed_out_as_it_came(endpoint: str, broker: "zmq.Socket[bytes]") -> None:
    with StatsSocket(endpoint, None) as stats:
        assert stats.answer() is None, "nothing was asked"
        stats.ask()
        peer, *question = broker.recv_multipart()
        assert len(question) == 1, "the broker answers messages of one frame only"
        assert stats.answer() is None, "nothing was answered"
        broker.send_multipart([peer, b"\xff no stats"])

        assert stats.socket.poll(BOUND_MS)
        assert stats.answer() == b"\xff no stats"
        assert stats.answer() is None


def test_late_answers_come_one_after_the_other(endpoint: str, broker: "zmq.Socket[bytes]") -> None:
    with StatsSocket(endpoint, None) as stats:
        stats.ask()
        stats.ask()
        for number in (b"1", b"2"):
            peer, _ = broker.recv_multipart()
            broker.send_multipart([peer, number])

        for number in (b"1", b"2"):
            assert stats.socket.poll(BOUND_MS)
            assert stats.answer() == number


def test_question_that_cannot_be_sent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "connect", lambda *_: None)  # as libzmq leaves a socket whose key was refused

    with StatsSocket("ipc://unused", None) as stats:
        stats.ask()

        assert stats.answer() is None


def test_close_waits_for_no_broker_and_leaves_nothing_open(endpoint: str) -> None:
    descriptors = open_files()
    stats = StatsSocket(endpoint, None)
    stats.ask()
    began_at = monotonic()

    stats.close()
    stats.close()

    assert monotonic() - began_at < BOUND_MS / 1000
    assert open_files() == descriptors


def test_connection_that_cannot_be_opened_leaves_nothing_open() -> None:
    descriptors = open_files()

    with pytest.raises(zmq.ZMQError):
        StatsSocket("no endpoint", None)

    assert open_files() == descriptors
