"""Hostile peers at all sockets, beside legitimate traffic: `python -m tests.fuzzing` for half a minute."""

import os

import pytest
import zmq

from racepool.protocol.frames import TO_CLIENT, decode, encode
from racepool.protocol.messages import Answer, Hello, Id, Outcome, Ping, Pong, Submit, ToClient, Welcome
from racepool.protocol.sockets import Context, Socket, dealer
from tests.fuzzing import campaign
from tests.fuzzing.payloads import HOSTILE
from tests.fuzzing.peer import PEERS
from tests.fuzzing.strangers import ATTEMPTS
from tests.profiles import is_long
from tests.running import Running, StartPool

pytestmark = pytest.mark.system

SECONDS = 60.0 if is_long() else 12.0
PATIENCE_MS, BEAT_MS = 20_000, 250
ANSWER_BYTES = 2**20


@pytest.fixture(scope="module")
def attacked(start_pool: StartPool) -> Running:
    return start_pool(**campaign.SETTINGS)


def test_no_hostile_peer_costs_a_result_a_lease_or_the_broker(attacked: Running) -> None:
    outcome = campaign.run(attacked, SECONDS, seed=os.urandom(4).hex() if is_long() else "every run")

    assert outcome.faults() == []
    assert outcome.tally.resolved > 10 * SECONDS
    assert set(outcome.latencies_ms) == set(PEERS)
    assert set(ATTEMPTS) < set(outcome.sent)
    assert outcome.after.counters.bad_frames > 1_000
    assert outcome.after.counters.stale_results > 100


def test_every_costly_payload_is_answered_within_limits(attacked: Running) -> None:
    before = attacked.stats()
    outcomes: dict[str, Outcome] = {}
    context: Context = zmq.Context()
    with dealer(context, f"ipc://{attacked.dir}/frontend.ipc") as socket:
        socket.send_multipart(encode(Hello(Id(os.urandom(16)), 1, 0, 0)))
        assert isinstance(decode(socket.recv_multipart(), TO_CLIENT), Welcome)

        for name, payload in HOSTILE.items():
            submit = Submit(Id(os.urandom(16)), 8_000, 0, again=False, is_shared=False, payload=payload)
            socket.send_multipart(encode(submit))
            answer = _answer(socket)
            assert isinstance(answer, Answer), name
            assert answer.task_id == submit.task_id
            assert len(answer.payload) < ANSWER_BYTES
            outcomes[name] = answer.outcome
    context.term()

    assert {name for name, outcome in outcomes.items() if outcome is Outcome.OK} == {
        "duplicate keys",
        "a text of 400 KB",
    }
    assert set(outcomes.values()) == {Outcome.OK, Outcome.INVALID_RACE}
    after = attacked.stats()
    assert after.counters.worker_crashes == before.counters.worker_crashes


def _answer(socket: Socket) -> ToClient:
    """Waits for the next message that is no sign of life, and sends signs of life itself."""
    for _ in range(PATIENCE_MS // BEAT_MS):
        if not socket.poll(BEAT_MS):
            socket.send_multipart(encode(Ping(0)))
        elif not isinstance(message := decode(socket.recv_multipart(), TO_CLIENT), Pong):
            return message
    raise AssertionError("no answer")
