"""Workers that say that they cannot start: what the broker keeps of it, and whom it tells."""

import pytest

from racepool.broker.actions import Report, SendToClient, SendToWorker
from racepool.broker.core import BrokerCore
from racepool.broker.failed_starts import FRESH_S, MAX_NAMES
from racepool.protocol.messages import MAX_TEXT_BYTES, CannotStart, Name, Ping, Pong, Refused, Text, Trouble, Who, text
from racepool.protocol.settings import Settings
from tests.broker.building import ALICE, EPOCH, W1, W2, an_id, hello, ready, submit

WHY = text("RACEPOOL_TRANSFORM=no_such:f: No module named 'no_such'")


@pytest.fixture
def broker() -> BrokerCore:
    return BrokerCore(Settings.load(), EPOCH)


def failed(broker: BrokerCore, name: str = "worker-0", reason: str = WHY, now: float = 1.0) -> list[object]:
    return list(broker.on_worker(W2, CannotStart(Name(name), Text(reason)), now))


def told(broker: BrokerCore, now: float) -> list[object]:
    """What a client hears after a ping."""
    broker.on_client(ALICE, hello(), now)
    return [action.message for action in broker.on_client(ALICE, Ping(0), now) if isinstance(action, SendToClient)]


def test_each_new_reason_is_reported_once(broker: BrokerCore) -> None:
    report = Report("worker_start_failed", {"worker": "worker-0", "reason": WHY})

    assert failed(broker, now=1.0) == [report]
    assert failed(broker, now=2.0) == []
    assert failed(broker, reason="another", now=3.0) != []
    assert failed(broker, "worker-1", "another", now=3.0) != []
    assert failed(broker, reason="another", now=3.0 + FRESH_S) != []


def test_client_is_told_while_no_worker_is_ready(broker: BrokerCore) -> None:
    assert told(broker, 1.0) == [Pong(EPOCH)]

    failed(broker, now=1.0)
    assert told(broker, 2.0) == [Pong(EPOCH), Trouble(text(f"worker-0 cannot start: {WHY}"))]

    broker.on_worker(W1, ready("worker-1"), 3.0)
    assert told(broker, 3.0) == [Pong(EPOCH)]
    assert [each.worker for each in broker.failed_starts.fresh(3.0)] == ["worker-0"]  # it still cannot start

    broker.on_worker(W2, ready("worker-0"), 4.0)
    assert list(broker.failed_starts.fresh(4.0)) == []


def test_worker_that_tries_no_more_is_forgotten(broker: BrokerCore) -> None:
    failed(broker, now=1.0)

    assert told(broker, 1.0 + FRESH_S) == [Pong(EPOCH)]


def test_of_very_many_names_only_the_latest_are_kept(broker: BrokerCore) -> None:
    for number in range(2 * MAX_NAMES):
        failed(broker, f"worker-{number}")

    names = [each.worker for each in broker.failed_starts.fresh(1.0)]
    assert names == [f"worker-{number}" for number in range(MAX_NAMES, 2 * MAX_NAMES)]


@pytest.mark.parametrize("words", ["", "plain", "two\nlines\x1b[31m", "é" * 500, "\U0001f3c7" * 100, "\ud800"])
def test_any_words_become_a_text_of_one_line(words: str) -> None:
    line = text(words)

    assert line.isprintable()
    assert len(line.encode()) <= MAX_TEXT_BYTES


def test_worker_that_talks_nonsense_opens_another_session_and_its_task_goes_back(broker: BrokerCore) -> None:
    """Its message may have been the result: nobody would wait for it in vain."""
    broker.on_worker(W1, ready(), 1.0)
    broker.on_client(ALICE, hello(), 1.0)
    broker.on_client(ALICE, submit("t1"), 1.0)
    assert broker.ledger.in_flight == 1

    actions = broker.on_worker_nonsense(W1, 2.0)

    assert SendToWorker(W1, Who()) in actions
    assert (broker.ledger.in_flight, broker.ledger.backlog.depth) == (0, 1)
    assert broker.on_worker_nonsense(W1, 2.0) == []
    assert broker.audit() == []


def test_shared_payload_that_the_broker_cannot_read_is_refused(broker: BrokerCore) -> None:
    broker.on_client(ALICE, hello(), 1.0)

    [refusal] = broker.on_client(ALICE, submit("t1", is_shared=True), 1.0)

    assert isinstance(refusal, SendToClient)
    assert isinstance(refusal.message, Refused)
    assert refusal.message.task_id == an_id("t1")
