import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from racepool.client.monitoring import fetch_stats, wait_for_workers
from racepool.protocol import sockets
from racepool.protocol.errors import BrokerUnavailableError
from racepool.protocol.settings import Settings
from tests.commands.stats import pool, worker

TIMEOUT_S = 0.2
Answering = Callable[[list[bytes | None]], Settings]


@pytest.fixture
def answering(endpoint: str) -> Iterator[Answering]:
    """Settings whose stats socket gives one of these answers to each question; None means no answer."""
    context = zmq.Context()
    bound = context.socket(zmq.ROUTER)
    bound.set(zmq.RCVTIMEO, 5_000)
    bound.bind(endpoint)
    threads: list[threading.Thread] = []

    def answer(answers: list[bytes | None]) -> None:
        with suppress(zmq.Again):  # fewer were asked
            for words in answers:
                peer, _ = bound.recv_multipart()
                if words is not None:
                    bound.send_multipart([peer, words])

    def start(answers: list[bytes | None]) -> Settings:
        threads.append(threading.Thread(target=answer, args=(answers,)))
        threads[-1].start()
        return Settings(stats_endpoint=endpoint)

    yield start
    for thread in threads:
        thread.join(15)
    context.destroy(linger=0)


def test_question_that_cannot_be_asked_waits_no_longer_than_one_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sockets, "connect", lambda *_: None)  # as libzmq leaves a socket whose key was refused
    started_at = time.monotonic()

    with pytest.raises(BrokerUnavailableError, match="no broker answered at ipc"):
        fetch_stats(Settings(dir=tmp_path), TIMEOUT_S)

    assert TIMEOUT_S <= time.monotonic() - started_at < 50 * TIMEOUT_S


def test_waiting_asks_again_when_a_broker_took_the_question_along_to_its_end(answering: Answering) -> None:
    settings = answering([None, pool(worker("worker-0")).model_dump_json().encode(), pool().model_dump_json().encode()])

    assert wait_for_workers(settings, None, 15).total_workers == 3


def test_too_few_workers_are_counted_though_the_last_question_had_no_answer(answering: Answering) -> None:
    settings = answering([pool().model_dump_json().encode(), None])

    with pytest.raises(TimeoutError, match=r"only 3 of 4 workers were ready within 1\.5 s"):
        wait_for_workers(settings, 4, 1.5)


def test_broker_that_never_answers_is_told_with_the_whole_time(answering: Answering) -> None:
    settings = answering([None, None])

    with pytest.raises(BrokerUnavailableError, match=r"no broker answered at ipc.* within 1\.2 s"):
        wait_for_workers(settings, None, 1.2)
