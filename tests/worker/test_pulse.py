"""The heartbeat thread with its own socket, against a broker that the test plays; the test is the main thread."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
import zmq

from racepool.protocol.messages import Assign, Epoch, Heartbeat, Id, Name, Outcome, Welcome
from racepool.protocol.settings import Settings
from racepool.protocol.sockets import Context
from racepool.worker.core import Identity, Session, WorkerCore
from racepool.worker.pulse import MainThread, Pulse
from tests.worker.fake_broker import FakeBroker

INTERVAL_S = 0.05
LIVENESS_S = 1.0
ME = Identity(Name("worker-0"), 7, Name("1.0"), 1000)
WaitUntil = Callable[..., None]


class Beating:
    """A worker core in a session with the test's broker, and its pulse."""

    def __init__(self, run_dir: Path) -> None:
        self.context: Context = zmq.Context()
        self.woken = threading.Event()
        self.core = WorkerCore(ME, lambda: Id(os.urandom(16)), liveness_s=LIVENESS_S, max_tasks=0)
        self.core.start(0.0)
        settings = Settings.load(dir=run_dir, heartbeat_interval=INTERVAL_S, liveness=LIVENESS_S)
        self.pulse = Pulse(self.context, settings, self.core, MainThread(self.woken.set))
        self.pulse.start()

    def join_session(self, broker: FakeBroker) -> None:
        """Does what a WELCOME does."""
        broker._known.add(self.core.session.id)
        self.core.on_message(Welcome(broker.epoch, 1000, 2000), 0.0)

    def work(self, broker: FakeBroker) -> None:
        self.core.on_message(Assign(broker.epoch, 1, Id(os.urandom(16)), 1, 1000, False, b""), 0.0)


@pytest.fixture
def beating(run_dir: Path) -> Iterator[Beating]:
    made = Beating(run_dir)
    yield made
    made.pulse.stop()
    made.context.term()  # blocks for ever if the thread left its socket open


def peers(broker: FakeBroker) -> list[bytes]:
    return [one.peer for one in list(broker.heard)]


def test_no_beat_before_the_welcome(broker: FakeBroker, beating: Beating, wait_until: WaitUntil) -> None:
    """The broker answers a beat that overtakes its READY with Who."""
    assert not beating.woken.wait(3 * INTERVAL_S)
    assert broker.heard == []

    beating.join_session(broker)

    wait_until(lambda: len(broker.heard) >= 3)
    assert beating.pulse.lost is None


def test_beat_tells_who_and_how(broker: FakeBroker, beating: Beating, wait_until: WaitUntil) -> None:
    beating.join_session(broker)
    wait_until(lambda: broker.heard)
    beat = broker.of(Heartbeat)[0]

    assert (beat.incarnation, beat.name, beat.pid) == (beating.core.session.id, ME.name, ME.pid)
    assert (beat.version, beat.started_at_ms, beat.busy) == (ME.version, ME.started_at_ms, False)
    assert 1 << 20 < beat.rss_bytes < 1 << 32

    beating.work(broker)
    wait_until(lambda: broker.of(Heartbeat)[-1].busy)
    beating.core.begin()
    beating.core.on_finished(Outcome.OK, b"", 0.0)
    wait_until(lambda: not broker.of(Heartbeat)[-1].busy)


def test_beats_go_on_while_the_main_thread_computes(broker: FakeBroker, beating: Beating) -> None:
    beating.join_session(broker)
    beating.work(broker)

    deadline = time.monotonic() + 15
    while len(broker.heard) < 12 and time.monotonic() < deadline:
        sum(range(1000))

    instants = [one.at for one in list(broker.heard)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(instants)]
    assert len(gaps) > 8
    assert median(gaps) < LIVENESS_S / 2


def test_unknown_session_wakes_the_main_thread(broker: FakeBroker, beating: Beating) -> None:
    beating.join_session(broker)
    broker.forget()

    assert beating.woken.wait(5)
    assert beating.pulse.lost == beating.core.session.id


def test_another_epoch_wakes_the_main_thread_even_of_a_busy_worker(
    broker: FakeBroker, beating: Beating, wait_until: WaitUntil
) -> None:
    beating.join_session(broker)
    beating.work(broker)
    wait_until(lambda: len(broker.of(Heartbeat)) >= 2)
    assert beating.pulse.lost is None

    broker.epoch = Epoch(b"another!")

    assert beating.woken.wait(5)
    assert beating.pulse.lost == beating.core.session.id


def test_new_session_beats_under_its_own_name_through_its_own_socket(
    broker: FakeBroker, beating: Beating, wait_until: WaitUntil
) -> None:
    beating.join_session(broker)
    wait_until(lambda: len(broker.heard) >= 3)
    assert len(set(peers(broker))) == 1
    first = beating.core.session

    beating.core.on_session_lost(first.id, 0.0)
    beating.join_session(broker)

    wait_until(lambda: broker.of(Heartbeat)[-1].incarnation == beating.core.session.id)
    assert len(set(peers(broker))) == 2
    assert beating.pulse.lost is None


def test_socket_that_hears_nothing_is_replaced(broker: FakeBroker, beating: Beating, wait_until: WaitUntil) -> None:
    broker.is_mute = True
    beating.join_session(broker)

    wait_until(lambda: len(set(peers(broker))) >= 3)
    assert not beating.woken.is_set()


def test_broker_that_comes_back_hears_it_again(
    start_broker: Callable[[], FakeBroker], beating: Beating, wait_until: WaitUntil
) -> None:
    first = start_broker()
    beating.join_session(first)
    wait_until(lambda: first.heard)
    first.close()

    second = start_broker()

    wait_until(lambda: second.heard)
    assert beating.woken.wait(5), "the new broker does not know the session"


def test_stop_ends_it_at_once(beating: Beating) -> None:
    started_at = time.monotonic()

    beating.pulse.stop()

    assert time.monotonic() - started_at < 5.0
    assert not beating.pulse._thread.is_alive()


def test_session_is_replaced_whole(beating: Beating) -> None:
    """The thread reads `session` without a lock: it must never see the id of one session with the epoch of another."""
    before = beating.core.session

    beating.core.on_message(Welcome(Epoch(b"12345678"), 1, 2000), 0.0)

    assert before == Session(before.id, None)
    assert beating.core.session is not before
