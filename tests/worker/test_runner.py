"""A real worker process against a broker that the test plays: its whole life, and each way in which it ends."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

from racepool.commands.chaos.corpus import real
from racepool.protocol import VERSION
from racepool.protocol.exits import Exit
from racepool.protocol.frames import encode
from racepool.protocol.messages import (
    MAX_INT,
    Assign,
    Bye,
    Epoch,
    Heartbeat,
    Id,
    Outcome,
    Ready,
    Recall,
    Recycle,
    Result,
    Returned,
    Welcome,
    Who,
)
from racepool.protocol.shared_memory import Segment
from racepool.races.payloads import unpack_result
from tests.fuzzing.corpus import any_frames
from tests.running import environment
from tests.worker.fake_broker import FakeBroker

pytestmark = pytest.mark.system
BOUND_S = 20.0
INTERVAL_S = 0.1
LIVENESS_S = 1.5
Race = Callable[..., dict[str, Any]]
WaitUntil = Callable[..., None]


class Worker:
    """A worker process and its log."""

    def __init__(
        self, directory: Path, arguments: list[str], pythonpath: Path | None = None, **settings: object
    ) -> None:
        self._path = directory / f"worker-{os.urandom(4).hex()}.log"
        given: dict[str, object] = {
            "transform": "transforms:scripted",
            "heartbeat_interval": INTERVAL_S,
            "liveness": LIVENESS_S,
            "name": "worker-0",
        }
        path = {"PYTHONPATH": str(pythonpath)} if pythonpath else {}
        with self._path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "racepool.worker", *arguments],
                env=environment(directory, **(given | settings)) | path,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def exit_code(self, timeout: float = BOUND_S) -> int:
        return self.process.wait(timeout)


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(run_dir: Path) -> Iterator[StartWorker]:
    started: list[Worker] = []

    def start(*arguments: str, pythonpath: Path | None = None, **settings: object) -> Worker:
        started.append(Worker(run_dir, list(arguments), pythonpath, **settings))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait()


@pytest.fixture
def worker(broker: FakeBroker, start_worker: StartWorker, wait_until: WaitUntil) -> Worker:
    """In a session with the test's broker."""
    made = start_worker()
    wait_until(lambda: broker.of(Heartbeat), timeout=BOUND_S)
    return made


def results_of(broker: FakeBroker, task: Assign) -> list[Result]:
    return [result for result in broker.of(Result) if result.task_id == task.task_id]


def is_busy(broker: FakeBroker) -> bool:
    return broker.of(Heartbeat)[-1].busy


@pytest.mark.usefixtures("worker")
def test_ready_tells_who_it_is(broker: FakeBroker, worker: Worker) -> None:
    (ready,) = broker.of(Ready)

    assert (ready.name, ready.pid, ready.version) == ("worker-0", worker.process.pid, VERSION)
    assert abs(ready.started_at_ms / 1000 - time.time()) < BOUND_S
    assert broker.of(Heartbeat)[0].incarnation == ready.incarnation


def test_supervisord_gives_the_name(broker: FakeBroker, start_worker: StartWorker, wait_until: WaitUntil) -> None:
    worker = start_worker(name="")  # empty counts as unset
    wait_until(lambda: broker.of(Ready), timeout=BOUND_S)
    named = start_worker("--name", "by-flag")
    wait_until(lambda: len(broker.of(Ready)) == 2, timeout=BOUND_S)

    assert broker.of(Ready)[0].name == f"worker-{worker.process.pid}"
    assert broker.of(Ready)[1].name == "by-flag"
    assert named.process.poll() is None


def test_tasks_are_done_one_after_the_other_under_their_leases(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    tasks = []
    for number in range(3):
        tasks.append(broker.assign(race("echo", f"r{number}")))
        wait_until(lambda: results_of(broker, tasks[-1]))

    results = [results_of(broker, task)[0] for task in tasks]
    assert [(result.epoch, result.lease) for result in results] == [(task.epoch, task.lease) for task in tasks]
    assert [result.outcome for result in results] == [Outcome.OK] * 3
    assert [unpack_result(result.payload)["id"] for result in results] == ["r0", "r1", "r2"]
    wait_until(lambda: len(worker.events("task_executed")) == 3)
    line = worker.events("task_executed")[0]
    assert (line["race_id"], line["attempt"], line["outcome"]) == ("r0", 1, "ok")
    assert line["task_id"] == tasks[0].task_id.hex()


def test_task_in_hand_is_begun_without_another_word_and_one_that_is_recalled_is_not(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    first, second = broker.assign(race("spin:0.2", "r1")), broker.assign(race("echo", "r2"))
    wait_until(lambda: results_of(broker, second))
    slow, recalled = broker.assign(race("spin:2", "r3")), broker.assign(race("echo", "r4"))
    broker.say(Recall(recalled.lease))
    wait_until(lambda: broker.of(Returned))
    last = broker.assign(race("echo", "r5"))
    wait_until(lambda: results_of(broker, last))

    assert [each.task_id for each in broker.of(Result)] == [each.task_id for each in (first, second, slow, last)]
    assert broker.of(Returned) == [Returned(broker.epoch, recalled.lease)]
    wait_until(lambda: len(worker.events("task_executed")) == 4)


@pytest.fixture
def segment() -> Iterator[Segment]:
    """The test's own shared memory: it plays the client, too."""
    made = Segment()
    yield made
    made.close()


def has_segment(worker: Worker) -> bool:
    return "memfd:racepool" in Path(f"/proc/{worker.process.pid}/maps").read_text()


def test_race_in_shared_memory_is_read_there_and_one_that_is_gone_is_reported(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil, segment: Segment
) -> None:
    shared = broker.assign(race("echo", "r1"), shared_in=segment)
    wait_until(lambda: results_of(broker, shared))
    slow = broker.assign(race("spin:0.3"))
    gone = broker.assign(race("echo", "r2"), shared_in=segment)
    segment.free(gone.task_id)  # as at a cancellation, while the task waits in hand
    wait_until(lambda: results_of(broker, gone))
    broken = broker.assign(race())
    broker.say(replace(broken, lease=broken.lease + 1, is_shared=True, payload=b"no reference"))
    wait_until(lambda: len(results_of(broker, broken)) == 2)

    assert shared.is_shared
    assert unpack_result(results_of(broker, shared)[0].payload)["id"] == "r1"
    assert results_of(broker, slow)[0].outcome is Outcome.OK
    assert (results_of(broker, gone)[0].outcome, results_of(broker, gone)[0].payload) == (Outcome.UNREADABLE, b"")
    assert results_of(broker, broken)[1].outcome is Outcome.UNREADABLE
    wait_until(lambda: len(worker.events("payload_unreadable")) == 2)


@pytest.mark.parametrize("is_busy_then", [False, True], ids=["idle", "busy"])
def test_worker_lets_go_of_shared_memory_that_it_does_not_read_from(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil, segment: Segment, *, is_busy_then: bool
) -> None:
    """Its client may be dead, and the memory of a dead client should be free."""
    shared = broker.assign(race("echo"), shared_in=segment)
    wait_until(lambda: results_of(broker, shared))
    assert has_segment(worker)
    in_hand: list[Assign] = []

    def has_let_go() -> bool:
        """Keeps a second task in the hand of a busy worker, so that it never waits for a message."""
        while is_busy_then and sum(not results_of(broker, task) for task in in_hand) < 2:
            in_hand.append(broker.assign(race("spin:0.4")))
        return not has_segment(worker)

    wait_until(has_let_go)


@pytest.mark.parametrize(("own", "brokers"), [(1_000_000, 16 << 20), (16 << 20, 1_000_000)], ids=["own", "broker"])
def test_result_above_the_lower_of_both_limits_is_too_large(
    broker: FakeBroker, start_worker: StartWorker, race: Race, wait_until: WaitUntil, *, own: int, brokers: int
) -> None:
    broker.payload_limit = brokers
    start_worker(payload_limit=own)
    wait_until(lambda: broker.of(Heartbeat), timeout=BOUND_S)

    task = broker.assign(race("large:1000000"))

    wait_until(lambda: results_of(broker, task))
    assert results_of(broker, task)[0].outcome is Outcome.TOO_LARGE


def test_run_timeout_beyond_any_timer_harms_nobody(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    """A client of another make may send any number."""
    task = broker.assign(race(), run_timeout_s=MAX_INT // 1000)
    wait_until(lambda: results_of(broker, task))

    assert results_of(broker, task)[0].outcome is Outcome.OK
    assert worker.process.poll() is None


def test_log_of_a_task_is_written_while_the_next_one_computes(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil, run_dir: Path
) -> None:
    first = broker.assign(race("spin:0.2", "r1"))
    broker.assign(race("echo", "r2"))  # in hand: its line comes just after that of r1, so it is held for a moment
    wait_until(lambda: results_of(broker, first))
    slow = broker.assign(race(f"wait-for:{run_dir}/go", "r3"))

    wait_until(lambda: [line["race_id"] for line in worker.events("task_executed")] == ["r1", "r2"])

    assert results_of(broker, slow) == []
    (run_dir / "go").touch()
    wait_until(lambda: results_of(broker, slow))


def test_heartbeats_keep_their_interval_while_the_transform_computes(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    task = broker.assign(race("spin:3"))
    wait_until(lambda: results_of(broker, task))

    busy = [one.at for one in list(broker.heard) if isinstance(one.message, Heartbeat) and one.message.busy]
    gaps = [later - earlier for earlier, later in itertools.pairwise(busy)]
    assert len(busy) >= 5
    assert median(gaps) < LIVENESS_S / 2, "the broker would take it for frozen"
    assert worker.process.poll() is None


def test_unknown_session_is_replaced_by_a_new_one(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    first = broker.of(Ready)[0]

    broker.say(Who())

    wait_until(lambda: len(broker.of(Ready)) == 2)
    second = broker.of(Ready)[1]
    assert second.incarnation != first.incarnation
    assert (second.name, second.pid, second.started_at_ms) == (first.name, first.pid, first.started_at_ms)
    task = broker.assign(race())
    wait_until(lambda: results_of(broker, task))
    wait_until(lambda: worker.events("session_lost"))


def test_new_epoch_is_noticed_by_the_heartbeat_of_an_idle_worker(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    broker.epoch = Epoch(b"another!")

    wait_until(lambda: len(broker.of(Ready)) == 2)
    task = broker.assign(race())
    wait_until(lambda: results_of(broker, task))
    assert results_of(broker, task)[0].epoch == Epoch(b"another!")
    assert worker.process.poll() is None


def test_busy_worker_drops_the_result_of_an_old_epoch(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil, run_dir: Path
) -> None:
    stale = broker.assign(race(f"wait-for:{run_dir}/go"))
    wait_until(lambda: is_busy(broker))
    broker.epoch = Epoch(b"another!")
    beats = len(broker.heard)
    wait_until(lambda: len(broker.heard) >= beats + 3)
    assert len(broker.of(Ready)) == 1, "it finishes first"

    (run_dir / "go").touch()

    wait_until(lambda: len(broker.of(Ready)) == 2)
    later = broker.assign(race())
    wait_until(lambda: results_of(broker, later))
    assert results_of(broker, stale) == []
    assert worker.process.poll() is None


def test_broker_that_is_away_is_waited_for(
    start_broker: Callable[[], FakeBroker], start_worker: StartWorker, race: Race, wait_until: WaitUntil
) -> None:
    worker = start_worker()
    wait_until(lambda: worker.events("worker_started"), timeout=BOUND_S)
    first = start_broker()
    wait_until(lambda: first.of(Heartbeat), timeout=BOUND_S)
    first.close()

    second = start_broker()

    wait_until(lambda: second.of(Ready), timeout=BOUND_S)
    wait_until(lambda: second.of(Heartbeat), timeout=BOUND_S)
    task = second.assign(race())
    wait_until(lambda: results_of(second, task))
    assert worker.process.poll() is None


def test_mute_broker_is_asked_again(broker: FakeBroker, start_worker: StartWorker, wait_until: WaitUntil) -> None:
    broker.is_mute = True
    start_worker()

    wait_until(lambda: len(broker.of(Ready)) >= 3, timeout=BOUND_S)

    assert len({ready.incarnation for ready in broker.of(Ready)}) == len(broker.of(Ready))


def test_garbage_from_the_broker_is_ignored_and_logged(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    garbage = [[b""], [b"junk", b"junk"], [b"\x93\x02\xa4TASK\x00"], [b"\x92\x01\xa5READY"], [b"x"] * 9]
    for frames in garbage:
        broker.say_frames(frames)
    task = broker.assign(race())

    wait_until(lambda: results_of(broker, task))
    wait_until(lambda: len(worker.events("bad_frame")) == len(garbage))


def test_broker_that_says_anything_gets_its_tasks_done(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    dice = Random(os.urandom(8))
    broker.noise = lambda: any_frames(dice)
    pid = worker.process.pid

    for _ in range(500):  # half of the send limit of the broker's socket
        broker.say_frames(any_frames(dice))
    for kind in (Assign, Who, Welcome, Bye) * 10:
        broker.say(real(kind, dice))
    broker.say_frames(encode(real(Assign, dice, epoch=broker.epoch)))
    tasks: list[Assign] = []

    def is_done() -> bool:
        """Assigns again and again: the worker drops a task whose session the noise has ended."""
        if not tasks or len(tasks) < len(broker.of(Heartbeat)):
            tasks.append(broker.assign(race("echo", "through it all")))
        return any(result.outcome is Outcome.OK for task in tasks for result in results_of(broker, task))

    wait_until(is_done, timeout=BOUND_S)
    assert worker.process.poll() is None
    assert broker.of(Heartbeat)[-1].pid == pid
    assert worker.events("bad_frame")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_worker_says_farewell_and_ends_at_once(
    broker: FakeBroker, worker: Worker, wait_until: WaitUntil, number: signal.Signals
) -> None:
    started_at = time.monotonic()
    worker.process.send_signal(number)

    assert worker.exit_code() == Exit.OK
    assert time.monotonic() - started_at < 5.0
    wait_until(lambda: broker.of(Bye))
    assert worker.events("worker_stopped")
    assert "Traceback" not in worker.log


def test_worker_without_a_broker_ends_at_once(start_worker: StartWorker, wait_until: WaitUntil) -> None:
    worker = start_worker()
    wait_until(lambda: worker.events("worker_started"), timeout=BOUND_S)

    started_at = time.monotonic()
    worker.process.terminate()

    assert worker.exit_code() == Exit.OK
    assert time.monotonic() - started_at < 5.0


def test_busy_worker_replies_before_it_ends(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil, run_dir: Path
) -> None:
    task = broker.assign(race(f"wait-for:{run_dir}/go", "r1"))
    wait_until(lambda: is_busy(broker))
    worker.process.terminate()
    next_task = broker.assign(race("echo", "r2"))  # was on its way when the signal came
    beats = len(broker.heard)
    wait_until(lambda: len(broker.heard) > beats + 1)
    assert worker.process.poll() is None
    wait_until(lambda: broker.of(Heartbeat)[-1].draining)
    assert broker.of(Heartbeat)[-1].busy

    (run_dir / "go").touch()

    assert worker.exit_code() == Exit.OK
    wait_until(lambda: broker.of(Bye))
    assert [result.task_id for result in broker.of(Result)] == [task.task_id]
    assert unpack_result(broker.of(Result)[0].payload)["id"] == "r1"
    assert results_of(broker, next_task) == []
    assert worker.events("worker_draining")


def test_large_result_of_a_worker_that_ends_arrives_whole(
    broker: FakeBroker, start_worker: StartWorker, race: Race, wait_until: WaitUntil
) -> None:
    worker = start_worker()
    wait_until(lambda: broker.of(Heartbeat), timeout=BOUND_S)
    task = broker.assign(race("large:12000000:2"))
    wait_until(lambda: any(beat.busy for beat in broker.of(Heartbeat)))
    broker.say(Recycle())

    assert worker.exit_code() == Exit.OK
    wait_until(lambda: results_of(broker, task))
    assert unpack_result(results_of(broker, task)[0].payload) == bytes(12_000_000)


@pytest.mark.parametrize("name", ["hold-gil", "spin"])
def test_kernel_ends_a_task_that_hangs_even_with_the_lock_held_in_c(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil, name: str
) -> None:
    """The broker kills earlier if it can; this timer is for the case that it cannot."""
    started_at = time.monotonic()
    broker.assign(race(name), run_timeout_s=0.3)

    assert worker.exit_code() == -signal.SIGALRM
    assert 0.3 + LIVENESS_S - 0.1 < time.monotonic() - started_at < 0.3 + LIVENESS_S + 4.0
    assert broker.of(Result) == []
    wait_until(lambda: broker.of(Heartbeat))


def test_timer_of_one_task_does_not_outlive_it(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    quick = broker.assign(race("echo"), run_timeout_s=0.1)
    wait_until(lambda: results_of(broker, quick))

    beats = len(broker.of(Heartbeat))
    wait_until(lambda: len(broker.of(Heartbeat)) > beats + (0.1 + LIVENESS_S) / INTERVAL_S + 2)

    assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["--transform", "no_such_module:f"], {}, "RACEPOOL_TRANSFORM=no_such_module:f: No module named"),
        ([], {"liveness": "soon"}, "RACEPOOL_LIVENESS=soon"),
        (["--name", "x" * 65], {}, "1 to 64 printable characters"),
    ],
)
def test_bad_settings_end_it_with_one_clear_line(
    start_worker: StartWorker, arguments: list[str], settings: dict[str, object], words: str
) -> None:
    started_at = time.monotonic()
    worker = start_worker(*arguments, **settings)

    assert worker.exit_code() == Exit.BAD_SETTINGS
    assert time.monotonic() - started_at > 1.0, "a supervisor would restart it in a tight loop"
    (line,) = worker.log.splitlines()
    assert words in line


def test_module_that_fails_at_its_import_ends_it_slowly_and_clearly(start_worker: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "broken_transform.py").write_text("raise RuntimeError('at its import')")
    started_at = time.monotonic()

    worker = start_worker("--transform", "broken_transform:f", pythonpath=tmp_path)

    assert worker.exit_code() == Exit.BAD_SETTINGS
    assert "at its import" in worker.events("worker_refused")[0]["reason"]
    assert time.monotonic() - started_at > 1.0, "a supervisor would restart it in a tight loop"


def test_uncaught_error_is_logged_and_ends_it(
    broker: FakeBroker, start_worker: StartWorker, race: Race, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """The transform broke the worker's own module."""
    (tmp_path / "breaking.py").write_text("""
from racepool.worker import runner
def f(race, *, polled_at, previous):
    runner.resident_bytes = lambda: open("/no-such-file")
""")
    worker = start_worker(transform="breaking:f", pythonpath=tmp_path, worker_memory_limit=1 << 40)
    wait_until(lambda: worker.events("broker_found"), timeout=BOUND_S)

    broker.assign(race())

    assert worker.exit_code() == Exit.FAILURE
    (line,) = worker.events("worker_failed")
    assert "no-such-file" in line["exception"]
    assert "Traceback" in line["exception"]


def test_worker_without_heartbeats_ends_itself(
    broker: FakeBroker, start_worker: StartWorker, race: Race, wait_until: WaitUntil
) -> None:
    worker = start_worker(transform="transforms:no_descriptors")
    wait_until(lambda: broker.of(Heartbeat), timeout=BOUND_S)

    broker.assign(race("sleep:5"))
    broker.is_mute = True  # then the heartbeat thread opens another socket, which fails

    assert worker.exit_code() == 70
    assert "Too many open files" in worker.log


def test_worker_asks_to_be_recycled_after_its_tasks_and_ends_when_it_may(
    broker: FakeBroker, start_worker: StartWorker, race: Race, wait_until: WaitUntil
) -> None:
    worker = start_worker(max_tasks_per_worker=2)
    wait_until(lambda: broker.of(Heartbeat), timeout=BOUND_S)
    for number in range(1, 4):
        broker.assign(race())
        wait_until(lambda number=number: len(broker.of(Result)) == number)
    assert [each.recycle for each in broker.of(Result)] == [False, True, True]
    assert worker.process.poll() is None

    broker.say(Recycle())

    assert worker.exit_code() == Exit.OK
    wait_until(lambda: broker.of(Bye))
    assert worker.events("worker_stopped")[0]["tasks_done"] == 3


def test_worker_that_grew_too_large_asks_to_be_recycled_with_its_reply(
    broker: FakeBroker, start_worker: StartWorker, race: Race, wait_until: WaitUntil
) -> None:
    start_worker(worker_memory_limit=200 << 20)
    wait_until(lambda: broker.of(Heartbeat), timeout=BOUND_S)
    small = broker.assign(race())
    wait_until(lambda: results_of(broker, small))
    large = broker.assign(race(f"hoard:{200 << 20}"))
    wait_until(lambda: results_of(broker, large))

    assert [each.recycle for each in broker.of(Result)] == [False, True]


def test_transform_that_asks_for_the_end_is_an_answer(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    task = broker.assign(race("system-exit"))
    wait_until(lambda: results_of(broker, task))

    assert results_of(broker, task)[0].outcome is Outcome.RAISED
    assert worker.process.poll() is None


def test_task_of_another_epoch_is_left_alone(
    broker: FakeBroker, worker: Worker, race: Race, wait_until: WaitUntil
) -> None:
    mine = broker.assign(race())
    wait_until(lambda: results_of(broker, mine))
    broker.say(Assign(Epoch(b"another!"), 1, Id(b"x" * 16), 1, 1000, False, mine.payload))
    later = broker.assign(race())
    wait_until(lambda: results_of(broker, later))

    assert len(broker.of(Result)) == 2
    assert worker.process.poll() is None


LEAVE = """
import gc, os, resource, signal, sys, threading, time
def leave(race, *, polled_at, previous):
    exec(race.name)
    return os.getpid()
"""


@pytest.fixture
def leaving(broker: FakeBroker, start_worker: StartWorker, tmp_path: Path, wait_until: WaitUntil) -> Worker:
    """Its transform executes the name of the race."""
    (tmp_path / "leaving.py").write_text(LEAVE)
    worker = start_worker(transform="leaving:leave", pythonpath=tmp_path)
    wait_until(lambda: broker.of(Ready), timeout=BOUND_S)
    return worker


ENDS_OF_CHILDREN = ("pass", "raise ValueError", "sys.exit(0)", "os.setsid()")


def test_child_of_a_transform_ends_at_its_end_and_sends_nothing(
    broker: FakeBroker, leaving: Worker, race: Race, wait_until: WaitUntil
) -> None:
    for end in ENDS_OF_CHILDREN:
        task = broker.assign(race(f"pid = os.fork()\nif not pid: {end}\nassert not pid or os.waitpid(pid, 0)[0]"))
        wait_until(lambda task=task: results_of(broker, task))

        assert [result.outcome for result in results_of(broker, task)] == [Outcome.OK], end
    assert unpack_result(results_of(broker, task)[0].payload) == leaving.process.pid
    wait_until(lambda: len(leaving.events("task_executed")) == len(ENDS_OF_CHILDREN))


def test_left_handler_and_mask_do_not_disarm_the_timer_of_the_next_task(
    broker: FakeBroker, leaving: Worker, race: Race, wait_until: WaitUntil
) -> None:
    task = broker.assign(race("signal.signal(signal.SIGALRM, lambda *_: None); signal.pthread_sigmask(0, {14})"))
    wait_until(lambda: results_of(broker, task))

    broker.assign(race("time.sleep(60)"), run_timeout_s=0.01)

    assert leaving.exit_code() == -signal.SIGALRM


def test_worker_whose_hard_limit_was_lowered_asks_to_be_replaced(
    broker: FakeBroker, leaving: Worker, race: Race, wait_until: WaitUntil
) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    name = "os.setegid(65534)" if os.geteuid() == 0 else limit  # root may raise a limit again
    task = broker.assign(race(name))
    wait_until(lambda: results_of(broker, task))

    assert results_of(broker, task)[0].recycle
    assert leaving.events("worker_spoiled")


def test_worker_whose_descriptors_were_closed_ends(broker: FakeBroker, leaving: Worker, race: Race) -> None:
    broker.assign(race("os.closerange(3, 1_000)"))

    assert leaving.exit_code() != 0


def test_thread_that_a_task_left_does_not_hold_up_the_end(
    broker: FakeBroker, leaving: Worker, race: Race, wait_until: WaitUntil
) -> None:
    task = broker.assign(race("threading.Thread(target=time.sleep, args=(600,)).start()"))
    wait_until(lambda: results_of(broker, task))

    leaving.process.terminate()

    assert leaving.exit_code() == -signal.SIGALRM
