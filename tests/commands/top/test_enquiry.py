from collections.abc import Iterator

import pytest
import zmq

from racepool.commands.top.enquiry import Enquiry
from racepool.protocol.errors import PoolError
from racepool.protocol.settings import Settings
from tests.commands.stats import pool

BOUND_MS = 5_000


@pytest.fixture
def broker(endpoint: str) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        bound.set(zmq.LINGER, 0)
        bound.set(zmq.RCVTIMEO, BOUND_MS)
        bound.bind(endpoint)
        yield bound


@pytest.fixture
def enquiry(endpoint: str) -> Iterator[Enquiry]:
    made = Enquiry(Settings(stats_endpoint=endpoint))
    yield made
    made.close()


def test_question_is_out_until_its_answer_was_taken(enquiry: Enquiry, broker: "zmq.Socket[bytes]") -> None:
    assert (enquiry.is_out, enquiry.answer()) == (False, None)
    enquiry.ask()
    assert (enquiry.is_out, enquiry.answer()) == (True, None)
    peer, _ = broker.recv_multipart()
    broker.send_multipart([peer, pool().model_dump_json().encode()])

    assert enquiry.socket.poll(BOUND_MS)
    assert enquiry.answer() == pool()
    assert not enquiry.is_out


def test_next_question_after_an_answer_uses_the_same_connection(enquiry: Enquiry, broker: "zmq.Socket[bytes]") -> None:
    peers = set()
    for _ in range(2):
        enquiry.ask()
        peer, _ = broker.recv_multipart()
        peers.add(peer)
        broker.send_multipart([peer, pool().model_dump_json().encode()])
        assert enquiry.socket.poll(BOUND_MS)
        assert enquiry.answer() is not None

    assert len(peers) == 1


def test_late_answer_to_a_question_that_was_asked_again_is_lost(enquiry: Enquiry, broker: "zmq.Socket[bytes]") -> None:
    enquiry.ask()
    first, _ = broker.recv_multipart()

    enquiry.ask()
    second, _ = broker.recv_multipart()
    broker.send_multipart([first, b"late"])
    broker.send_multipart([second, pool().model_dump_json().encode()])

    assert enquiry.socket.poll(BOUND_MS)
    assert enquiry.answer() == pool()
    assert enquiry.answer() is None


def test_answer_that_is_no_stats_is_an_error(enquiry: Enquiry, broker: "zmq.Socket[bytes]") -> None:
    enquiry.ask()
    peer, _ = broker.recv_multipart()
    broker.send_multipart([peer, b"{}"])

    assert enquiry.socket.poll(BOUND_MS)
    with pytest.raises(PoolError, match="no PoolStats"):
        enquiry.answer()
    assert not enquiry.is_out
