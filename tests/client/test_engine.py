"""The I/O thread against a broker that the test plays: sessions, answers that nobody can read, and its own end."""

import gc
import json
import os
import resource
import threading
import time
import weakref
from asyncio import CancelledError
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
import zmq

from racepool import PoolFuture, ZmqPool
from racepool.client.engine import Engine
from racepool.protocol.errors import (
    InvalidRaceError,
    PoolBrokenError,
    PoolClosedError,
    PoolError,
    ProtocolMismatchError,
)
from racepool.protocol.failures import pack_field_errors
from racepool.protocol.messages import (
    PROTOCOL_VERSION,
    AskStats,
    Bye,
    Cancel,
    Epoch,
    Hello,
    Id,
    Outcome,
    Ping,
    Pong,
    Reject,
    Stats,
    Submit,
    ToClient,
    Who,
)
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import Settings
from racepool.protocol.shared_memory import SEGMENT_BYTES, SHARE_FROM_BYTES, SegmentReader
from racepool.races.payloads import pack_result, unpack_request
from tests.client.fake_broker import PAYLOAD_LIMIT, FakeBroker, answer, echo, nothing
from tests.fuzzing.corpus import any_frames_but_terms

BOUND_S = 15.0
Race = Callable[..., dict[str, Any]]
WaitUntil = Callable[..., None]
MakePool = Callable[..., ZmqPool]


def io_threads() -> int:
    return sum(thread.name == "racepool-client" for thread in threading.enumerate())


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def submit(pool: ZmqPool, race: dict[str, Any]) -> PoolFuture[Any]:
    """Like `exec`, for a broker that answers other things than races."""
    return pool.exec(race)


def execute(pool: ZmqPool, race: dict[str, Any]) -> object:
    return submit(pool, race).result(BOUND_S)


def test_tasks_are_submitted_in_order_and_answered(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    futures = [submit(pool, race(race_id=f"r{number}")) for number in range(600)]

    assert [future.result(BOUND_S) for future in futures] == [f"r{number}" for number in range(600)]
    submits = broker.of(Submit)
    assert len(submits) == 600
    assert [echo(submit)[0] for submit in submits] == [
        answer(submit.task_id, Outcome.OK, pack_result(f"r{number}")) for number, submit in enumerate(submits)
    ]


@pytest.mark.parametrize("lost", [Who(), Bye(), Pong(Epoch(b"another!"))])
def test_unresolved_tasks_come_again_in_the_next_session(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil, lost: ToClient
) -> None:
    broker.on_submit = nothing
    futures = [submit(pool, race(race_id=f"r{number}")) for number in range(3)]
    wait_until(lambda: len(broker.of(Submit)) == 3)
    broker.on_submit = echo

    broker.say(lost)

    assert [future.result(BOUND_S) for future in futures] == ["r0", "r1", "r2"]
    first, second = broker.of(Submit)[:3], broker.of(Submit)[3:]
    assert [(one.task_id, one.payload) for one in first] == [(one.task_id, one.payload) for one in second]
    assert [one.again for one in (*first, *second)] == [False] * 3 + [True] * 3
    assert len({hello.client_id for hello in broker.of(Hello)}) == 1


def test_broker_that_died_is_found_again(
    start_broker: Callable[..., FakeBroker], pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    dying = start_broker(nothing)
    future = submit(pool, race(race_id="r1"))
    wait_until(lambda: dying.of(Submit))
    dying.close()

    start_broker()

    assert future.result(BOUND_S) == "r1"


@pytest.mark.parametrize("interval_s", [0.05, 0.25], ids=["short", "half the liveness"])
def test_broker_that_falls_silent_is_left(
    broker: FakeBroker, make_pool: MakePool, race: Race, wait_until: WaitUntil, interval_s: float
) -> None:
    """The thread sleeps up to a heartbeat interval: that is no pause of its own."""
    pool = make_pool(liveness=0.5, heartbeat_interval=interval_s)
    broker.on_submit = nothing
    future = submit(pool, race(race_id="r1"))
    wait_until(lambda: broker.of(Submit))
    broker.is_mute = True
    wait_until(lambda: len(broker.of(Hello)) > 1)

    broker.is_mute, broker.on_submit = False, echo

    assert future.result(BOUND_S) == "r1"


def test_pause_of_its_own_thread_is_not_the_brokers_silence(
    broker: FakeBroker, make_pool: MakePool, race: Race, wait_until: WaitUntil
) -> None:
    liveness_s = 1.5
    pool = make_pool(liveness=liveness_s)
    broker.on_submit = nothing
    future = submit(pool, race())
    wait_until(lambda: broker.of(Submit))
    broker.is_mute = True  # nothing it said before waits in the socket when the pause ends
    has_paused = threading.Event()

    def stand_still(_future: object) -> None:
        has_paused.wait(liveness_s * 1.2)
        hellos.append(len(broker.of(Hello)))
        broker.is_mute, broker.on_submit = False, echo

    hellos: list[int] = []
    future.add_done_callback(stand_still)
    broker.say(*echo(broker.of(Submit)[0]))

    wait_until(lambda: hellos)
    assert execute(pool, race(race_id="r2")) == "r2"
    assert len(broker.of(Hello)) == hellos[0], "the session goes on"


def test_second_answer_and_unknown_answers_change_nothing(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    def twice(submit: Submit) -> list[ToClient]:
        return [*echo(submit), answer(submit.task_id, Outcome.RAISED, msgpack.packb(["X", "x", ""]))]

    broker.on_submit = twice
    seen: list[object] = []
    future = submit(pool, race(race_id="r1"))
    future.add_done_callback(seen.append)

    assert future.result(BOUND_S) == "r1"
    assert execute(pool, race(race_id="r2")) == "r2"
    assert seen == [future]


def clients_of(broker: FakeBroker) -> set[Id]:
    """All clients that sent HELLO. A client may send it several times."""
    return {hello.client_id for hello in broker.of(Hello)}


def test_client_is_heard_while_it_waits(broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil) -> None:
    broker.on_submit = nothing
    submit(pool, race())

    wait_until(lambda: len(broker.of(Ping)) >= 5)
    assert len(clients_of(broker)) == 1


def test_cancelled_task_is_taken_back(broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil) -> None:
    broker.on_submit = nothing
    future = submit(pool, race())
    wait_until(lambda: broker.of(Submit))
    task_id = broker.of(Submit)[0].task_id

    assert future.cancel()
    assert future.cancel(kill=True)

    wait_until(lambda: len(broker.of(Cancel)) == 2)
    assert broker.of(Cancel) == [Cancel(task_id, kill=False), Cancel(task_id, kill=True)]
    assert wait([future], BOUND_S).done == {future}


@pytest.mark.parametrize(
    ("outcome", "payload"),
    [
        (Outcome.OK, b"\xc1 no msgpack"),
        (Outcome.OK, msgpack.packb(["transformed_race", b"{}"])),
        (Outcome.OK, msgpack.packb(["pickle", b""])),
        (Outcome.RAISED, b""),
        (Outcome.CRASHED, msgpack.packb([1, 2])),
        (Outcome.TOO_LARGE, msgpack.packb([None])),
        (Outcome.INVALID_RACE, msgpack.packb({})),
    ],
)
def test_unreadable_answer_fails_its_own_task_only(
    broker: FakeBroker, pool: ZmqPool, race: Race, outcome: Outcome, payload: bytes
) -> None:
    broker.on_submit = lambda submit: [answer(submit.task_id, outcome, payload)]

    with pytest.raises(PoolError, match=r"task [0-9a-f]{32} \(race r1\)"):
        submit(pool, race(race_id="r1")).result(BOUND_S)

    broker.on_submit = echo
    assert execute(pool, race(race_id="r2")) == "r2"


def test_unreadable_stats_fail_the_question_only(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    def stats(_submit: Submit) -> list[ToClient]:
        return [Stats(b"{}")]

    broker.on_submit = stats
    submit(pool, race()).cancel()
    asked = pool._connected().ask_stats()
    wait_until(lambda: broker.of(AskStats))
    broker.say(Stats(b'{"another": "version"}'))

    with pytest.raises(PoolError, match="install the same racepool"):
        asked.result(BOUND_S)
    broker.on_submit = echo
    assert execute(pool, race(race_id="r2")) == "r2"


@pytest.mark.parametrize(
    "frames", [[b""], [b"\x00"], [b"junk", b"junk"], [msgpack.packb([PROTOCOL_VERSION, "SUBMIT"])]]
)
def test_garbage_from_the_broker_is_ignored(broker: FakeBroker, pool: ZmqPool, race: Race, frames: list[bytes]) -> None:
    assert execute(pool, race(race_id="r1")) == "r1"

    broker.say_frames(frames)

    assert execute(pool, race(race_id="r2")) == "r2"


def test_broker_that_says_anything_gets_its_answers_through(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    dice = Random(os.urandom(8))
    broker.noise = lambda: any_frames_but_terms(dice)

    futures = [submit(pool, race(race_id=f"r{index}")) for index in range(1_000)]

    assert [future.result(BOUND_S) for future in futures] == [f"r{index}" for index in range(1_000)]


def test_broker_of_another_version_fails_what_waits(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    future = submit(pool, race())
    wait_until(lambda: broker.of(Submit))

    broker.say_frames([msgpack.packb([9, "WHO"])])

    with pytest.raises(ProtocolMismatchError, match="install the same racepool"):
        future.result(BOUND_S)


def test_callback_that_raises_harms_nobody(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    for number, kind in enumerate((ValueError, SystemExit, CancelledError)):

        def fail(_future: object, kind: type[BaseException] = kind) -> None:
            raise kind("the caller's own bug")

        broker.on_submit = nothing
        future = submit(pool, race(race_id=f"r{number}"))
        future.add_done_callback(fail)
        wait_until(lambda: len(broker.of(Submit)) == 2 * number + 1)  # noqa: B023  # it is waited for here
        broker.on_submit = echo
        broker.say(*echo(broker.of(Submit)[-1]))

        assert future.result(BOUND_S) == f"r{number}"
        assert execute(pool, race(race_id="next")) == "next"
        assert caplog.text.count(f"{kind.__name__}: the caller's own bug") == 1


def test_callback_may_submit_again(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    chained: list[Any] = []
    has_chained = threading.Event()

    def again(_future: object) -> None:
        chained.append(submit(pool, race(race_id="r2")))
        has_chained.set()

    submit(pool, race(race_id="r1")).add_done_callback(again)

    assert has_chained.wait(BOUND_S)
    assert chained[0].result(BOUND_S) == "r2"
    assert len(broker.of(Submit)) == 2


def test_threads_share_one_pool(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    wrong: list[object] = []

    def work(name: str) -> None:
        futures = {f"{name}-{number}": submit(pool, race(race_id=f"{name}-{number}")) for number in range(50)}
        wrong.extend(race_id for race_id, future in futures.items() if future.result(BOUND_S) != race_id)

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)

    assert wrong == []
    assert len({submit.task_id for submit in broker.of(Submit)}) == len(broker.of(Submit)) == 400
    assert len(clients_of(broker)) == 1


def test_temporary_pool_lives_until_its_answer_and_leaves_nothing(
    broker: FakeBroker, race: Race, wait_until: WaitUntil
) -> None:
    before, threads = descriptors(), io_threads()
    broker.on_submit = nothing

    future = submit(ZmqPool(broker.endpoint), race(race_id="r1"))
    gc.collect()
    wait_until(lambda: broker.of(Submit))
    assert io_threads() == threads + 1
    broker.say(*echo(broker.of(Submit)[0]))

    assert future.result(BOUND_S) == "r1"
    wait_until(lambda: io_threads() == threads)
    wait_until(lambda: broker.of(Bye))
    wait_until(lambda: descriptors() <= before + 1)  # the broker's end of the connection closes a little later


def test_many_temporary_pools_leak_no_descriptor(broker: FakeBroker, race: Race, wait_until: WaitUntil) -> None:
    threads, before = io_threads(), descriptors()

    futures = [submit(ZmqPool(broker.endpoint), race(race_id=f"r{number}")) for number in range(20)]

    assert [future.result(BOUND_S) for future in futures] == [f"r{number}" for number in range(20)]
    wait_until(lambda: io_threads() == threads)
    wait_until(lambda: descriptors() < before + 10)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_nothing_is_kept_of_a_task_that_has_ended(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil, *, is_cancelled: bool
) -> None:
    """The last task of a day would keep its race and its result until the next day."""
    broker.on_submit = nothing if is_cancelled else echo
    future = submit(pool, race(race_id="r1"))
    if is_cancelled:
        assert future.cancel()
    else:
        assert future.result(BOUND_S) == "r1"
    ended = weakref.ref(future)

    del future

    wait_until(lambda: gc.collect() >= 0 and ended() is None)


def segments() -> int:
    """How many descriptors of shared memory this process has open."""
    gc.collect()
    opened = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum("memfd:racepool" in str(target) for target in opened)


BODY = json.dumps({"id": "r1", "padding": "x" * SHARE_FROM_BYTES}).encode()
ENDS: dict[str, Callable[[Id], ToClient]] = {
    "answered": lambda task_id: answer(task_id, Outcome.OK, pack_result("r1")),
    "failed": lambda task_id: answer(task_id, Outcome.RAISED, b""),
    "refused": lambda task_id: Reject(task_id, 1, 1, in_bytes=False),
}


@pytest.mark.parametrize("end", [*ENDS, "cancelled"])
def test_shared_memory_of_a_task_is_free_again_at_its_end(
    broker: FakeBroker, pool: ZmqPool, wait_until: WaitUntil, end: str
) -> None:
    """A client whose memory is full sends its payloads through the socket: the leak would only cost time."""
    broker.can_share, broker.on_submit = True, nothing
    body = BODY + b" " * (PAYLOAD_LIMIT - 2 * len(BODY))

    for number in range(2 * SEGMENT_BYTES // len(body)):
        future = pool.exec(body)
        wait_until(lambda: len(broker.of(Submit)) == number + 1)  # noqa: B023  # it is waited for here
        last = broker.of(Submit)[-1]
        assert last.is_shared, f"no room is left after {number} tasks"
        if end == "cancelled":
            assert future.cancel()
        else:
            broker.say(ENDS[end](last.task_id))
            future.exception(BOUND_S)


def test_payload_in_shared_memory_is_the_race(broker: FakeBroker, pool: ZmqPool, wait_until: WaitUntil) -> None:
    broker.can_share, broker.on_submit = True, nothing
    pool.exec(BODY)
    wait_until(lambda: broker.of(Submit))
    (shared,) = broker.of(Submit)

    parcel = SegmentReader().read(shared.payload, shared.task_id, PAYLOAD_LIMIT)

    assert shared.is_shared
    assert unpack_request(parcel).race == BODY


@pytest.mark.parametrize(("can_share", "size", "is_shared"), [(True, 0, True), (True, -1, False), (False, 0, False)])
def test_payload_is_shared_from_a_size_on_and_only_where_the_broker_can(
    broker: FakeBroker, pool: ZmqPool, wait_until: WaitUntil, *, can_share: bool, size: int, is_shared: bool
) -> None:
    broker.can_share, broker.on_submit = can_share, nothing

    pool.exec(BODY[: SHARE_FROM_BYTES + size])

    wait_until(lambda: broker.of(Submit))
    assert broker.of(Submit)[0].is_shared is is_shared


def test_pool_that_was_shut_down_holds_no_shared_memory(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    before = segments()
    assert execute(pool, race(race_id=broker.endpoint)) == broker.endpoint
    assert segments() > before

    pool.shutdown()

    assert segments() == before


def test_forked_child_gives_its_copy_of_the_shared_memory_back(run_dir: Path) -> None:
    before = segments()
    engine = Engine(settings(run_dir))
    assert segments() > before

    engine.fail_in_child()  # as in the child

    assert segments() == before
    engine.stop()
    engine.join(BOUND_S)


def test_pool_that_nobody_holds_frees_its_thread(broker: FakeBroker, race: Race) -> None:
    threads = io_threads()
    pool = ZmqPool(broker.endpoint)
    assert execute(pool, race(race_id="r1")) == "r1"
    thread = pool._connected()._thread

    del pool
    gc.collect()
    thread.join(BOUND_S)

    assert io_threads() == threads


def settings(run_dir: Path) -> Settings:
    return Settings.load(dir=run_dir, connect_timeout=60)


def test_submission_to_an_engine_that_has_just_ended_fails(run_dir: Path) -> None:
    """exec() in one thread, shutdown() in another: a task that comes in between must not wait for ever."""
    engine = Engine(settings(run_dir))
    engine.close()
    engine.join(BOUND_S)

    with pytest.raises(PoolClosedError, match=r"task .*submit it to a new pool"):
        engine.submit(Parcel(b"", b""), 60.0, 30.0).result(BOUND_S)
    with pytest.raises(PoolClosedError):
        engine.ask_stats().result(BOUND_S)
    assert engine.unresolved == 0


def test_exec_and_shutdown_race_and_nothing_is_left_unresolved(
    broker: FakeBroker, make_pool: MakePool, race: Race
) -> None:
    for _ in range(20):
        pool = make_pool()
        futures: list[Any] = []

        def submit_until_closed(pool: ZmqPool = pool, futures: list[Any] = futures) -> None:
            with suppress(PoolClosedError):
                while True:
                    futures.append(submit(pool, race()))

        thread = threading.Thread(target=submit_until_closed)
        thread.start()
        pool.shutdown()
        thread.join(BOUND_S)

        assert not wait(futures, BOUND_S).not_done
    assert len(clients_of(broker)) <= 20


def test_stop_fails_what_is_unresolved_and_says_farewell(
    broker: FakeBroker, run_dir: Path, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    engine = Engine(settings(run_dir))
    future = engine.submit(Parcel(b"", b""), 60.0, 30.0)
    asked = engine.ask_stats()
    wait_until(lambda: broker.of(Submit))
    wait_until(lambda: broker.of(AskStats))

    started_at = time.monotonic()
    engine.stop()
    engine.join(BOUND_S)

    with pytest.raises(PoolClosedError, match="shut down before the answer came"):
        future.result(0)
    with pytest.raises(PoolClosedError):
        asked.result(0)
    assert time.monotonic() - started_at < BOUND_S / 2
    wait_until(lambda: broker.of(Bye))


def test_future_that_is_being_cancelled_at_a_fork_is_usable_in_the_child(run_dir: Path, wait_until: WaitUntil) -> None:
    """The I/O thread holds the future's lock at that moment, and the child has no I/O thread."""
    engine = Engine(settings(run_dir))
    future = engine.submit(Parcel(b"", b""), 60.0, 30.0)
    condition = future._condition

    with condition:
        future.cancel()
        wait_until(lambda: engine.unresolved == 0)  # the I/O thread has begun, and waits for the lock
        engine.fail_in_child()  # as in the child
        asking = threading.Thread(target=future.cancelled, daemon=True)
        asking.start()
        asking.join(BOUND_S)

        assert not asking.is_alive()
    engine.stop()
    engine.join(BOUND_S)


@pytest.mark.parametrize("depth", [5, 1_000, 100_000])
def test_race_whose_id_is_anything_fails_alone(broker: FakeBroker, pool: ZmqPool, race: Race, depth: int) -> None:
    """1,000 nested lists can be packed, but no recursive function can read them."""
    broker.on_submit = lambda submit: [answer(submit.task_id, Outcome.INVALID_RACE, pack_field_errors([]))]
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]

    with pytest.raises(InvalidRaceError):
        submit(pool, race() | {"id": nested}).result(BOUND_S)

    broker.on_submit = echo
    assert execute(pool, race(race_id="next")) == "next"
    while nested:  # freed level by level: freed at once, it would take as many nested calls
        nested = nested[0]


def test_death_of_the_thread_fails_all_and_names_the_cause(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    """A process without a free file descriptor cannot open the next session's socket."""
    broker.on_submit = nothing
    futures = [submit(pool, race()) for _ in range(3)]
    asked = pool._connected().ask_stats()
    wait_until(lambda: len(broker.of(Submit)) == 3)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        broker.say(Who())
        for future in futures:
            with pytest.raises(PoolBrokenError, match="Too many open files") as raised:
                future.result(BOUND_S)
            assert isinstance(raised.value.__cause__, zmq.ZMQError)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    with pytest.raises(PoolBrokenError, match="make a new pool"):
        asked.result(BOUND_S)
    with pytest.raises(PoolBrokenError, match="make a new pool"):
        submit(pool, race())
    with pytest.raises(PoolBrokenError):
        pool.stats()
    pool.shutdown()


def test_service_is_warned_through_its_log_that_no_broker_answers(
    pool: ZmqPool,
    start_broker: Callable[..., FakeBroker],
    race: Race,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="racepool")
    future = submit(pool, race(race_id="r1"))
    wait_until(lambda: [record.levelname for record in caplog.records] == ["WARNING"])

    start_broker()

    assert future.result(BOUND_S) == "r1"
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("racepool", "WARNING"),
        ("racepool", "INFO"),
    ]
