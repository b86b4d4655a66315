"""Every row of the library's contract, with a broker that the test plays."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import msgpack
import pytest

import racepool
from racepool import PoolFuture, ZmqPool
from racepool.protocol.errors import (
    BacklogFullError,
    BrokerUnavailableError,
    InvalidRaceError,
    PayloadTooLargeError,
    PoolClosedError,
    PoolError,
    SettingsError,
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
)
from racepool.protocol.messages import AskStats, Bye, Hello, Outcome, Reject, Stats, Submit, ToClient
from racepool.races.payloads import unpack_request
from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from tests.client.fake_broker import FakeBroker, answer, echo, nothing, race_of
from tests.running import environment

BOUND_S = 15.0
MONEY = {
    "pools": {"winPool": 10000, "placePool": 5000},
    "money_tracker": {"entrants": [{"entrant_id": "a", "hold_percentage": 5, "bet_percentage": 5}]},
}
Race = Callable[..., dict[str, Any]]
WaitUntil = Callable[..., None]
MakePool = Callable[..., ZmqPool]


def submit(pool: ZmqPool, race: object, **options: Any) -> PoolFuture[Any]:  # noqa: ANN401
    """Like `exec`, for a broker that answers other things than races, and for races of a wrong type."""
    return pool.exec(race, **options)  # type: ignore[arg-type]


async def awaited(pool: ZmqPool, race: dict[str, Any]) -> object:
    return await submit(pool, race)


def requests(broker: FakeBroker) -> list[Any]:
    return [unpack_request(message.payload) for message in broker.of(Submit)]


# --- exec: what it raises at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("race", [None, 5, ["a", "list"], object()])
def test_what_cannot_be_a_race_is_refused_at_once(pool: ZmqPool, race: object) -> None:
    with pytest.raises(InvalidRaceError, match=type(race).__name__):
        submit(pool, race)


@pytest.mark.parametrize("value", [object(), {1, 2}, (1 for _ in ())])
def test_mapping_that_cannot_be_packed_is_refused_at_once(pool: ZmqPool, race: Race, value: object) -> None:
    with pytest.raises(InvalidRaceError, match="extra: cannot be packed"):
        submit(pool, race() | {"extra": value})


def test_text_that_is_no_unicode_is_refused_at_once(pool: ZmqPool) -> None:
    with pytest.raises(InvalidRaceError, match="Unicode"):
        submit(pool, "\ud800")


def test_instant_without_a_zone_is_refused_at_once(pool: ZmqPool, race: Race) -> None:
    with pytest.raises(InvalidRaceError, match=r"polled_at.*timezone-aware"):
        submit(pool, race(), polled_at=datetime(2026, 1, 31, 12, 0))  # noqa: DTZ001  # that is the point


def test_payload_beyond_the_limit_is_refused_at_once(make_pool: MakePool) -> None:
    pool = make_pool(payload_limit=2000)

    with pytest.raises(PayloadTooLargeError, match="RACEPOOL_PAYLOAD_LIMIT") as raised:
        submit(pool, b"x" * 2000)
    assert raised.value.limit_bytes == 2000
    assert raised.value.size_bytes > 2000


def test_more_than_max_in_flight_is_refused_at_once(
    start_broker: Callable[..., FakeBroker], make_pool: MakePool, race: Race, wait_until: WaitUntil
) -> None:
    start_broker(nothing)
    pool = make_pool(max_in_flight=2)
    first, _ = submit(pool, race()), submit(pool, race())

    with pytest.raises(BacklogFullError, match="submit again later") as raised:
        submit(pool, race())
    assert (raised.value.depth, raised.value.limit) == (2, 2)
    first.cancel()
    wait_until(lambda: pool._connected().unresolved == 1)
    submit(pool, race())


@pytest.mark.parametrize("name", ["queue_timeout_s", "run_timeout_s"])
@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 86_401, 1e300])
def test_timeout_that_is_none_is_refused_at_once(pool: ZmqPool, race: Race, name: str, timeout_s: float) -> None:
    with pytest.raises(ValueError, match=name):
        submit(pool, race(), **{name: timeout_s})


def test_pool_that_was_shut_down_refuses(pool: ZmqPool, race: Race) -> None:
    pool.shutdown()

    with pytest.raises(PoolClosedError, match="make a new one"):
        submit(pool, race())
    with pytest.raises(PoolClosedError):
        pool.stats()
    with pytest.raises(PoolClosedError):
        pool.wait_for_workers(1, 0.1)
    assert isinstance(PoolClosedError(), RuntimeError)


# --- exec: what comes through the future ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("RUN_TIMEOUT", "soon"), ("ENDPOINT", "http://x"), ("LIVENESS", "0.1"), ("WORKERS", "0")]
)
def test_bad_settings_come_through_the_future(
    run_dir: Path, race: Race, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"RACEPOOL_{name}", value)

    future = submit(ZmqPool(), race())

    with pytest.raises(SettingsError, match=name):
        future.result(BOUND_S)
    monkeypatch.delenv(f"RACEPOOL_{name}")
    assert run_dir.exists()


def test_directory_that_others_may_enter_comes_through_the_future(run_dir: Path, race: Race) -> None:
    run_dir.chmod(0o755)

    with pytest.raises(SettingsError, match="chmod 700"):
        submit(ZmqPool(), race()).result(BOUND_S)


def test_pool_recovers_once_its_settings_are_right(
    broker: FakeBroker, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RACEPOOL_WORKERS", "none")
    pool = ZmqPool()
    assert isinstance(submit(pool, race()).exception(BOUND_S), SettingsError)

    monkeypatch.setenv("RACEPOOL_WORKERS", "2")

    assert submit(pool, race()).result(BOUND_S) == "race-1"
    assert broker.of(Submit)
    pool.shutdown()


def test_no_broker_fails_the_future_within_the_connect_timeout(make_pool: MakePool, race: Race, run_dir: Path) -> None:
    pool = make_pool(connect_timeout=0.3)
    started_at = time.monotonic()

    with pytest.raises(BrokerUnavailableError) as raised:
        submit(pool, race(race_id="r1")).result(BOUND_S)

    assert 0.3 <= time.monotonic() - started_at < 3.0
    for words in ("task ", "(race r1)", str(run_dir), "racepool up"):
        assert words in str(raised.value)
    assert isinstance(raised.value, ConnectionError)


def test_connect_timeout_is_an_argument(race: Race, run_dir: Path) -> None:
    pool = ZmqPool(f"ipc://{run_dir}/nobody.ipc", connect_timeout_s=0.2, max_in_flight=1)

    future = submit(pool, race())

    with pytest.raises(BacklogFullError):
        submit(pool, race())
    with pytest.raises(BrokerUnavailableError, match=r"nobody\.ipc within 0\.2 s"):
        future.result(BOUND_S)
    pool.shutdown()


def test_arguments_that_are_left_out_are_the_settings(
    race: Race, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RACEPOOL_ENDPOINT", f"ipc://{run_dir}/elsewhere.ipc")
    monkeypatch.setenv("RACEPOOL_CONNECT_TIMEOUT", "0.2")
    monkeypatch.setenv("RACEPOOL_MAX_IN_FLIGHT", "1")
    pool = ZmqPool()

    future = submit(pool, race())

    with pytest.raises(BacklogFullError):
        submit(pool, race())
    with pytest.raises(BrokerUnavailableError, match=r"elsewhere\.ipc within 0\.2 s"):
        future.result(BOUND_S)
    pool.shutdown()


def test_exec_returns_at_once_whatever_the_broker_does(broker: FakeBroker, make_pool: MakePool, race: Race) -> None:
    """There are more tasks than fit into the window and no answers; or there is no broker at all."""
    broker.on_submit = nothing
    started_at = time.monotonic()

    for pool in (make_pool(), make_pool(endpoint=f"{broker.endpoint}.nobody", connect_timeout=60)):
        futures = [submit(pool, race()) for _ in range(600)]
        assert not any(future.done() for future in futures)

    assert time.monotonic() - started_at < 10.0


def test_queue_timeout_ends_the_waiting_for_a_broker(make_pool: MakePool, race: Race) -> None:
    pool = make_pool()

    with pytest.raises(TaskTimeoutError, match=r"race-1.*0\.2 s while queued \(no broker") as raised:
        submit(pool, race(), queue_timeout_s=0.2).result(BOUND_S)
    assert raised.value.state == "queued"
    assert isinstance(raised.value, TimeoutError)


Failure = tuple[Outcome, object, type[PoolError], str]
FAILURES: list[Failure] = [
    (Outcome.INVALID_RACE, [["entrants.0.name", "is missing"]], InvalidRaceError, r"entrants\.0\.name: is missing"),
    (Outcome.RAISED, ["KeyError", "'x'", "Traceback..."], TransformError, "KeyError: 'x'.*remote_traceback"),
    (Outcome.CRASHED, [["worker-1", None], ["worker-0", 9]], WorkerCrashedError, "2 attempts.*worker-1, worker-0"),
    (Outcome.TOO_LARGE, [77], PayloadTooLargeError, "77 bytes.*RACEPOOL_PAYLOAD_LIMIT"),
    (Outcome.RUN_TIMEOUT, [], TaskTimeoutError, "7 s while running.*raise run_timeout_s"),
    (Outcome.QUEUE_TIMEOUT, [], TaskTimeoutError, "9 s while queued.*add workers"),
]


@pytest.mark.parametrize(("outcome", "payload", "kind", "words"), FAILURES)
@pytest.mark.parametrize("form", ["mapping", "json", "event"])
def test_failure_is_one_clear_error_that_names_task_and_race(  # noqa: PLR0917
    broker: FakeBroker,
    pool: ZmqPool,
    race: Race,
    outcome: Outcome,
    payload: object,
    kind: type[PoolError],
    words: str,
    form: str,
) -> None:
    broker.on_submit = lambda task: [answer(task.task_id, outcome, msgpack.packb(payload))]
    forms: dict[str, object] = {
        "mapping": race(race_id="r1"),
        "json": b'{"id": "r1"}',
        "event": '{"data": {"race": {"event_id": "r1"}}}',
    }

    future = submit(pool, forms[form], queue_timeout_s=9, run_timeout_s=7)

    with pytest.raises(kind, match=words) as raised:
        future.result(BOUND_S)
    assert f"task {future.task_id} (race r1)" in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'"id"', b"5", b"null", b'{"data": 5}', b'{"data": []}', b"{}"])
def test_race_that_cannot_be_told_is_left_out_of_the_message(broker: FakeBroker, pool: ZmqPool, body: bytes) -> None:
    broker.on_submit = lambda task: [answer(task.task_id, Outcome.RUN_TIMEOUT, b"")]

    with pytest.raises(TaskTimeoutError, match=r"^task [0-9a-f]{32} ran out"):
        submit(pool, body).result(BOUND_S)


def test_full_backlog_comes_through_the_future(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    broker.on_submit = lambda task: [Reject(task.task_id, 90, 100, in_bytes=True)]

    with pytest.raises(
        BacklogFullError,
        match=r"task .* \(race race-1\).*90 of 100 bytes \(RACEPOOL_BACKLOG_BYTES\); submit again later",
    ):
        submit(pool, race()).result(BOUND_S)


# --- exec: what goes out ----------------------------------------------------------------------------------------------


def test_every_form_of_a_race_arrives_as_the_same_race(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    broker.on_submit = lambda task: [answer(task.task_id, Outcome.OK, msgpack.packb(["msgpack", None]))]
    text = json.dumps(race())
    forms: list[object] = [race(), text, text.encode(), bytearray(text.encode()), memoryview(text.encode())]
    forms.append(RaceData.parse(race()))

    wait([submit(pool, form) for form in forms], BOUND_S)

    assert [RaceData.parse(request.race) for request in requests(broker)] == [RaceData.parse(race())] * len(forms)
    assert requests(broker)[2].race == text.encode(), "a body goes out as it came"


def test_instant_of_the_poll_and_timeouts_go_out(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    polled_at = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)

    submit(pool, race(), polled_at=polled_at, run_timeout_s=1.5).result(BOUND_S)
    submit(pool, race(), run_timeout_s=0.0001).result(BOUND_S)

    assert requests(broker)[0].polled_at == polled_at
    assert requests(broker)[0].previous is None
    assert abs((requests(broker)[1].polled_at - datetime.now(UTC)).total_seconds()) < BOUND_S
    assert [task.run_timeout_ms for task in broker.of(Submit)] == [1500, 1]


def test_timeouts_that_are_left_out_are_the_settings(make_pool: MakePool, broker: FakeBroker, race: Race) -> None:
    submit(make_pool(run_timeout=1.5), race()).result(BOUND_S)
    with pytest.raises(TaskTimeoutError, match=r"0\.2 s while queued"):
        submit(make_pool(endpoint=f"{broker.endpoint}.nobody", queue_timeout=0.2), race()).result(BOUND_S)

    assert [task.run_timeout_ms for task in broker.of(Submit)] == [1500]


def test_previous_poll_goes_out_in_every_form(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    previous = transform_race(RaceData.parse(race(race_id="r1") | MONEY), polled_at=datetime.now(UTC))
    forms: list[Any] = [previous, previous.money_flow_records, [previous.money_flow_records[0].model_dump()]]

    wait([submit(pool, race(race_id="r1"), previous=form) for form in forms], BOUND_S)

    assert previous.money_flow_records[0].win_pool_amount == 50000
    assert [request.previous.amounts for request in requests(broker)] == [{"a": (50000, 25000)}] * 3


@pytest.mark.parametrize("body", [bytes, bytearray, memoryview, bytes.decode], ids=lambda form: form.__name__)
def test_nothing_of_a_body_is_parsed_in_the_callers_process(
    broker: FakeBroker, make_pool: MakePool, body: Callable[[bytes], object]
) -> None:
    called: set[str] = set()

    def note(frame: FrameType, event: str, what: Any) -> None:  # noqa: ANN401
        if event in {"call", "c_call"}:
            called.add(what.__name__ if event == "c_call" else frame.f_code.co_name)

    pool = make_pool()
    threading.setprofile(note)  # profiles the I/O thread, which the first exec starts
    sys.setprofile(note)
    try:
        future = submit(pool, body(b'{"id": "r1"}'))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)

    assert future.result(BOUND_S) == "r1"
    assert {"pack_request", "to_bytes"} <= called
    assert called & {"from_json", "loads", "raw_decode", "validate_json", "parse", "peek"} == set()
    assert len(broker.of(Submit)) == 1


def test_race_that_changes_after_exec_goes_out_as_it_was(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    mutable = race(race_id="before")
    body = bytearray(b'{"id": "before"}')
    futures = [submit(pool, mutable), submit(pool, body)]
    mutable["id"], body[:] = "after", b'{"id": "after!"}'

    assert futures[0].result(BOUND_S) == "before"
    wait(futures, BOUND_S)
    assert requests(broker)[1].race == b'{"id": "before"}'


# --- loops and threads ------------------------------------------------------------------------------------------------


def test_several_loops_share_one_pool(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    async def main(name: str) -> list[object]:
        return list(await asyncio.gather(*(awaited(pool, race(race_id=f"{name}{n}")) for n in range(30))))

    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda name: asyncio.run(main(name)), "abc"))

    assert results == [[f"{name}{n}" for n in range(30)] for name in "abc"]
    assert len(broker.of(Submit)) == 90


def test_threads_that_come_first_at_once_share_one_connection(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    at_once = threading.Barrier(8)

    def work(name: int) -> object:
        at_once.wait(BOUND_S)
        return submit(pool, race(race_id=f"r{name}")).result(BOUND_S)

    try:
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval_s)

    assert results == [f"r{name}" for name in range(8)]
    assert len({hello.client_id for hello in broker.of(Hello)}) == 1


def test_task_with_the_broker_is_not_running_and_can_be_cancelled(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    future = submit(pool, race())
    wait_until(lambda: broker.of(Submit))

    assert not future.running()
    assert future.cancel()
    assert not future.running()


def test_loop_after_loop_uses_one_pool(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    assert [asyncio.run(awaited(pool, race(race_id=f"r{n}"))) for n in range(3)] == ["r0", "r1", "r2"]
    assert broker.of(Submit)


def test_closed_loop_harms_no_other_task(broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil) -> None:
    """An event loop ends while its tasks are at the broker; another loop of the process goes on."""
    broker.on_submit = nothing
    loop = asyncio.new_event_loop()
    task = loop.create_task(awaited(pool, race(race_id="r1")))
    loop.run_until_complete(asyncio.sleep(0))
    wait_until(lambda: broker.of(Submit))
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # as the test means it
    loop.close()
    waiting = broker.of(Submit)[0]

    broker.say(answer(waiting.task_id, Outcome.OK, msgpack.packb(["msgpack", 1])))
    wait_until(lambda: pool._connected().unresolved == 0)
    broker.on_submit = lambda one: [answer(one.task_id, Outcome.OK, msgpack.packb(["msgpack", 2]))]

    assert asyncio.run(awaited(pool, race())) == 2


# --- the end ----------------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_what_is_unresolved(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    future = submit(pool, race())
    wait_until(lambda: broker.of(Submit))
    closing = threading.Thread(target=pool.shutdown)
    closing.start()
    with pytest.raises(PoolClosedError):
        wait_until(lambda: submit(pool, race()).cancel() and False)
    assert closing.is_alive()

    broker.say(answer(broker.of(Submit)[0].task_id, Outcome.OK, msgpack.packb(["msgpack", "last"])))

    closing.join(BOUND_S)
    assert not closing.is_alive()
    assert future.result(0) == "last"
    wait_until(lambda: broker.of(Bye))
    pool.shutdown()


def test_shutdown_without_waiting_lets_the_rest_come(
    broker: FakeBroker, pool: ZmqPool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    future = submit(pool, race())
    wait_until(lambda: broker.of(Submit))
    closing = threading.Thread(target=lambda: pool.shutdown(wait=False))

    closing.start()

    closing.join(BOUND_S)
    assert not closing.is_alive()
    assert not future.done()
    broker.say(answer(broker.of(Submit)[0].task_id, Outcome.OK, msgpack.packb(["msgpack", "last"])))
    assert future.result(BOUND_S) == "last"


def test_shutdown_may_cancel_what_is_unresolved(broker: FakeBroker, pool: ZmqPool, race: Race) -> None:
    broker.on_submit = nothing
    futures = [submit(pool, race()) for _ in range(3)]

    pool.shutdown(cancel_futures=True)

    assert all(future.cancelled() for future in futures)
    assert wait(futures, BOUND_S).done == set(futures)


def test_with_waits_and_cancels_if_its_block_failed(
    broker: FakeBroker, make_pool: MakePool, race: Race, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing
    with make_pool() as pool:
        future = submit(pool, race())
        wait_until(lambda: broker.of(Submit))
        answering = threading.Timer(0.1, lambda: broker.say(*echo(broker.of(Submit)[0])))
        answering.start()
    assert future.result(0) == "race-1"
    answering.join()

    held: list[PoolFuture[Any]] = []

    def fail() -> None:
        with make_pool() as pool:
            held.append(submit(pool, race()))
            raise KeyError("the block's own")

    with pytest.raises(KeyError):
        fail()
    assert held[0].cancelled()


def test_async_with_and_aclose_leave_the_loop_free(broker: FakeBroker, make_pool: MakePool, race: Race) -> None:
    broker.on_submit = nothing

    async def main() -> tuple[object, bool]:
        ticks = 0
        async with make_pool() as pool:
            future = submit(pool, race())
            closing = asyncio.create_task(pool.aclose())
            deadline = time.monotonic() + BOUND_S
            while not (ticks and broker.of(Submit)) and time.monotonic() < deadline:
                ticks += 1
                await asyncio.sleep(0.01)
            assert not closing.done()
            broker.say(answer(broker.of(Submit)[0].task_id, Outcome.OK, msgpack.packb(["msgpack", "last"])))
            await asyncio.wait_for(closing, BOUND_S)
        return await future, ticks > 0

    assert asyncio.run(main()) == ("last", True)


def test_aclose_takes_what_shutdown_takes(broker: FakeBroker, make_pool: MakePool, race: Race) -> None:
    broker.on_submit = nothing
    left, cancelled = make_pool(), make_pool()
    futures = [submit(left, race()), submit(cancelled, race())]

    asyncio.run(left.aclose(wait=False))
    asyncio.run(cancelled.aclose(cancel_futures=True))

    assert [future.done() for future in futures] == [False, True]
    assert futures[1].cancelled()


def test_async_with_cancels_if_its_block_failed(broker: FakeBroker, make_pool: MakePool, race: Race) -> None:
    broker.on_submit = nothing
    held: list[PoolFuture[Any]] = []

    async def fail() -> None:
        async with make_pool() as pool:
            held.append(submit(pool, race()))
            raise KeyError("the block's own")

    with pytest.raises(KeyError):
        asyncio.run(asyncio.wait_for(fail(), BOUND_S))
    assert held[0].cancelled()


def test_shutdown_before_the_first_use_needs_no_broker(pool: ZmqPool) -> None:
    pool.shutdown()
    pool.shutdown()


def test_pool_tells_its_state(broker: FakeBroker, make_pool: MakePool, race: Race) -> None:
    broker.on_submit = nothing
    pool = make_pool()
    assert repr(pool) == "<ZmqPool not connected yet>"
    submit(pool, race())
    assert repr(pool) == f"<ZmqPool {broker.endpoint} unresolved=1>"
    pool.shutdown(cancel_futures=True)
    assert repr(pool) == "<ZmqPool shut down>"


# --- stats and workers ------------------------------------------------------------------------------------------------


def stats_with(workers: int, expected: int = 3) -> bytes:
    none: dict[str, Any] = {"p50": None, "p90": None, "p99": None, "max": None, "count": 0, "sum": 0.0, "buckets": []}
    told: dict[str, Any] = {
        "total_workers": workers, "active_workers": 0, "idle_workers": workers, "expected_workers": expected,
        "degraded": False, "queue_depth": 0, "held_by_clients": 0, "in_flight": 0, "oldest_queued_s": None,
        "backlog_limit": 1, "workers": [], "counters": {}, "queue_wait_ms": none, "run_ms": none,
        "crash_detection_ms": none, "clients": 1, "recent_events": [], "failed_starts": [],
        "broker": {"pid": 1, "epoch": "", "version": "", "protocol_version": 1, "uptime_s": 1.0, "rss_bytes": 1},
    }  # fmt: skip
    return json.dumps(told).encode()


class Counting:
    """Answers the nth question for stats with n workers."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_over = threading.Event()
        self._thread.start()

    def _run(self) -> None:
        answered = 0
        while not self._is_over.wait(0.005):
            asked = len(self._broker.of(AskStats))
            while answered < asked:
                answered += 1
                self._broker.say(Stats(stats_with(answered)))

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.fixture
def counting(broker: FakeBroker) -> Iterator[Counting]:
    made = Counting(broker)
    yield made
    made.close()


@pytest.mark.usefixtures("counting")
def test_stats_come_to_threads_and_loops(pool: ZmqPool) -> None:
    assert pool.stats().total_workers == 1
    assert asyncio.run(pool.stats_async()).total_workers == 2


@pytest.mark.usefixtures("counting")
def test_question_that_follows_an_answer_gets_newer_stats(pool: ZmqPool) -> None:
    """Even if it comes from another thread, before the I/O thread has resolved all earlier questions."""
    following: list[PoolFuture[Any]] = []
    has_asked = threading.Event()

    def ask_again(_: object) -> None:
        following.append(pool._connected().ask_stats())
        has_asked.set()

    asked = pool._connected().ask_stats()
    asked.add_done_callback(ask_again)

    assert asked.result(BOUND_S).total_workers == 1
    assert has_asked.wait(BOUND_S)
    assert following[0].result(BOUND_S).total_workers == 2


@pytest.mark.usefixtures("counting")
def test_waiting_for_workers_ends_when_they_are_there(pool: ZmqPool) -> None:
    pool.wait_for_workers(2)
    pool.wait_for_workers()
    assert pool.stats().total_workers == 4


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize(
    "wait", [ZmqPool.wait_for_workers, lambda *given: asyncio.run(ZmqPool.wait_for_workers_async(*given))]
)
def test_waiting_for_no_number_waits_for_as_many_as_the_broker_expects(pool: ZmqPool, wait: Any) -> None:  # noqa: ANN401
    wait(pool)

    assert pool.stats().total_workers == 4, "the third answer told of three"


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize(
    "wait", [ZmqPool.wait_for_workers, lambda *given: asyncio.run(ZmqPool.wait_for_workers_async(*given))]
)
def test_waiting_for_workers_without_a_timeout_ends_with_the_connect_timeout(make_pool: MakePool, wait: Any) -> None:  # noqa: ANN401
    started_at = time.monotonic()

    with pytest.raises(BrokerUnavailableError, match="of 1000 workers"):
        wait(make_pool(connect_timeout=2.0), 1000)

    assert 2.0 <= time.monotonic() - started_at < 10.0


@pytest.mark.usefixtures("counting")
def test_waiting_for_workers_leaves_the_loop_free(pool: ZmqPool) -> None:
    async def main() -> bool:
        waiting = asyncio.create_task(pool.wait_for_workers_async(4))
        await asyncio.sleep(0)
        was_done = waiting.done()
        await asyncio.wait_for(waiting, BOUND_S)
        return was_done

    assert asyncio.run(main()) is False


@pytest.mark.usefixtures("counting")
def test_too_few_workers_are_an_error_that_counts_them(pool: ZmqPool) -> None:
    with pytest.raises(BrokerUnavailableError, match=r"only \d+ of 1000 workers are ready; look at the workers' logs"):
        pool.wait_for_workers(1000, 2.0)
    with pytest.raises(BrokerUnavailableError, match="of 1000 workers"):
        asyncio.run(pool.wait_for_workers_async(1000, 2.0))


def test_no_broker_is_an_error_for_stats_and_waiting(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(connect_timeout=0.3)

    with pytest.raises(BrokerUnavailableError, match="no broker answered at ipc"):
        pool.stats()
    with pytest.raises(BrokerUnavailableError, match="racepool up"):
        pool.wait_for_workers(1, 0.1)
    with pytest.raises(BrokerUnavailableError, match="racepool up"):
        asyncio.run(pool.wait_for_workers_async(1, 0.1))
    pool.shutdown()
    assert caplog.records == [], "the question that nobody waits for any more ends in silence"


# --- processes --------------------------------------------------------------------------------------------------------


def python(run_dir: Path, code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(run_dir),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


AWAITING = """
import asyncio
from racepool import pool

async def main():
    tasks = [asyncio.ensure_future(pool.exec(b"{}")) for _ in range(10)]
    await asyncio.sleep(0.1)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "code",
    [
        "from racepool import pool; futures = [pool.exec(b'{}') for _ in range(100)]",
        "from racepool import ZmqPool; f = ZmqPool().exec(b'{}')",
        "from racepool import ZmqPool; ZmqPool().exec(b'{}')",
        "from racepool import pool; pool.exec(b'{}'); pool.shutdown(wait=False)",
        AWAITING,
        "import asyncio\nfrom racepool import pool\nasync def main():\n    pool.exec(b'{}')\nasyncio.run(main())",
    ],
)
def test_interpreter_ends_with_tasks_outstanding_and_no_broker(run_dir: Path, code: str) -> None:
    process = python(run_dir, code)

    started_at = time.monotonic()
    out, err = process.communicate(timeout=BOUND_S)

    assert (process.returncode, out, err) == (0, "", "")
    assert time.monotonic() - started_at < 10.0


def test_interpreter_says_farewell_for_pools_that_nobody_holds(
    broker: FakeBroker, run_dir: Path, wait_until: WaitUntil
) -> None:
    broker.on_submit = nothing

    process = python(run_dir, "import sys; from racepool import ZmqPool; f = ZmqPool().exec(b'{}'); sys.stdin.read()")
    wait_until(lambda: broker.of(Submit))
    out, err = process.communicate("", timeout=BOUND_S)

    assert (process.returncode, out, err) == (0, "", "")
    wait_until(lambda: broker.of(Bye))


def test_interrupt_ends_a_waiting_program_at_once(broker: FakeBroker, run_dir: Path, wait_until: WaitUntil) -> None:
    broker.on_submit = nothing
    process = python(run_dir, "from racepool import pool\nwith pool as p:\n    p.exec(b'{}').result()")
    wait_until(lambda: broker.of(Submit))

    process.send_signal(signal.SIGINT)
    started_at = time.monotonic()
    _, err = process.communicate(timeout=BOUND_S)

    assert process.returncode == -signal.SIGINT
    assert err.strip().endswith("KeyboardInterrupt")
    assert time.monotonic() - started_at < 10.0
    wait_until(lambda: broker.of(Bye))


FORK = """
import os, sys
from racepool import PoolForkedError, ZmqPool, pool
MAKE
inherited = POOL.exec({"id": "inherited"})
assert not inherited.done()
child = os.fork()
if child == 0:
    try:
        inherited.result(5)
    except PoolForkedError as error:
        assert "call exec() again" in str(error)
    else:
        os._exit(2)
    if inherited.cancel():
        os._exit(3)
    os._exit(0 if POOL.exec({"id": "child"}).result(5) == "child" else 4)
_, status = os.waitpid(child, 0)
assert POOL.exec({"id": "parent"}).result(5) == "parent"
print(os.waitstatus_to_exitcode(status), inherited.done(), flush=True)
sys.stdin.read()
print(inherited.result(5))
"""


@pytest.mark.parametrize(("make", "pool_name"), [("", "pool"), ("kept = ZmqPool()", "kept"), ("", "ZmqPool()")])
def test_fork_leaves_the_parent_its_tasks_and_the_child_a_pool_of_its_own(
    broker: FakeBroker, run_dir: Path, wait_until: WaitUntil, make: str, pool_name: str
) -> None:
    def all_but_inherited(task: Submit) -> list[ToClient]:
        return [] if race_of(task)["id"] == "inherited" else echo(task)

    broker.on_submit = all_but_inherited
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FORK.replace("MAKE", make).replace("POOL", pool_name)],
        env=environment(run_dir),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["0", "False"]

    waiting = [task for task in broker.of(Submit) if race_of(task)["id"] == "inherited"]
    broker.say_to(waiting[0].task_id, answer(waiting[0].task_id, Outcome.OK, msgpack.packb(["msgpack", "late"])))
    out, err = process.communicate("", timeout=BOUND_S)

    assert (process.returncode, out.strip(), err) == (0, "late", "")
    wait_until(lambda: len(broker.of(Bye)) >= 1)


FORK_LOOP = """
import asyncio, os, signal
from racepool import pool

async def one():
    return await pool.exec({"id": "r"})

assert asyncio.run(one()) == "r"
import racepool.client.future
LOCK.acquire()  # as another thread may at the moment of the fork
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends a child that waits for the lock
    os._exit(0 if asyncio.run(one()) == "r" else 1)
LOCK.release()
_, status = os.waitpid(child, 0)
assert asyncio.run(one()) == "r"
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("lock", ["racepool.client.future._mailboxes_lock", "pool._lock"])
def test_child_can_await_though_a_thread_of_the_parent_held_a_lock_at_the_fork(
    broker: FakeBroker, run_dir: Path, lock: str
) -> None:
    out, err = python(run_dir, FORK_LOOP.replace("LOCK", lock)).communicate(timeout=BOUND_S)

    assert (out.strip(), err) == ("0", "")
    assert broker.of(Submit)


def test_application_wide_pool_connects_at_its_first_use() -> None:
    assert isinstance(racepool.pool, ZmqPool)
    assert repr(racepool.pool) == "<ZmqPool not connected yet>"


@pytest.mark.parametrize(
    "wait", [ZmqPool.wait_for_workers, lambda *given: asyncio.run(ZmqPool.wait_for_workers_async(*given))]
)
def test_waiting_for_workers_goes_on_beyond_the_connect_timeout(make_pool: Callable[..., ZmqPool], wait: Any) -> None:  # noqa: ANN401
    pool = make_pool(connect_timeout=0.1)
    started_at = time.monotonic()

    with pytest.raises(BrokerUnavailableError):
        wait(pool, 1, 0.6)

    assert 0.6 <= time.monotonic() - started_at < 3
