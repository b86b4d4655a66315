"""Every error as a caller meets it: its message names the task and the race, if there is one, and says what to do."""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import pytest

from racepool import (
    BacklogFullError,
    BrokerUnavailableError,
    CrashedAttempt,
    InvalidRaceError,
    PayloadTooLargeError,
    PoolBrokenError,
    PoolClosedError,
    PoolError,
    PoolForkedError,
    PoolFuture,
    ProtocolMismatchError,
    RaceData,
    SettingsError,
    StoreError,
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
    ZmqPool,
)
from racepool.client.answers import race_id, race_of
from racepool.protocol.failures import pack_crashes
from racepool.protocol.messages import PROTOCOL_VERSION, Answer, Outcome, Reject, Submit, Who
from racepool.storage import PostgresStore
from racepool.worker.execution import Execution
from tests.client.fake_broker import PAYLOAD_LIMIT, FakeBroker, answer, nothing
from tests.documented_errors import is_documented
from tests.hostile import HOSTILE

BOUND_S = 15.0
RACE_ID = "r-42"
FOREIGN_VERSION = 99
Race: TypeAlias = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """What is needed to provoke an error."""

    start_broker: Callable[..., FakeBroker]
    make_pool: Callable[..., ZmqPool]
    race: dict[str, Any]
    run_dir: Path
    patch: pytest.MonkeyPatch
    wait_until: Callable[..., None]

    def submit(self, race: Any = None, **options: Any) -> PoolFuture[Any]:  # noqa: ANN401
        return self.make_pool().exec(self.race if race is None else race, **options)


Met: TypeAlias = tuple[BaseException | None, str | None]
"""The error, and the id of its task."""


@pytest.fixture
def stage(  # noqa: PLR0917
    start_broker: Callable[..., FakeBroker],
    make_pool: Callable[..., ZmqPool],
    race: Race,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> Stage:
    return Stage(start_broker, make_pool, race(race_id=RACE_ID), run_dir, monkeypatch, wait_until)


def failure(future: PoolFuture[Any]) -> Met:
    return future.exception(BOUND_S), future.task_id


def refusal(pool: ZmqPool, race: object, **options: Any) -> Met:  # noqa: ANN401
    """The error that `exec` itself raises."""
    try:
        pool.exec(race, **options)  # type: ignore[arg-type]
    except PoolError as error:
        return error, None
    return None, None


# --- of a task --------------------------------------------------------------------------------------------------------


def worked(stage: Stage, race: object = None, *, returns: object = None, limit_bytes: int = 1 << 20) -> Met:
    """Runs a real worker's execution, whose transform returns or raises `returns`."""

    def transform(_race: RaceData, **_poll: object) -> object:
        if isinstance(returns, Exception):
            raise returns
        return returns

    def work(task: Submit) -> list[Answer]:
        return [answer(task.task_id, *Execution(transform).run(task.payload, limit_bytes))]

    stage.start_broker(work)
    return failure(stage.submit(race))


def answered(stage: Stage, outcome: Outcome, payload: bytes = b"") -> Met:
    stage.start_broker(lambda task: [answer(task.task_id, outcome, payload)])
    return failure(stage.submit(queue_timeout_s=9, run_timeout_s=7))


def rejected(stage: Stage, *, in_bytes: bool) -> Met:
    stage.start_broker(lambda task: [Reject(task.task_id, 90, 100, in_bytes=in_bytes)])
    return failure(stage.submit())


def crashed(stage: Stage) -> Met:
    attempts = [CrashedAttempt("worker-0", None), CrashedAttempt("worker-1", 9)]
    return answered(stage, Outcome.CRASHED, pack_crashes(attempts))


def larger_than_the_broker_takes(stage: Stage) -> Met:
    stage.start_broker()
    return failure(stage.submit(stage.race | {"padding": "x" * PAYLOAD_LIMIT}))


def without_a_broker(stage: Stage, connect_timeout_s: float = 0.2, **options: Any) -> Met:  # noqa: ANN401
    return failure(stage.make_pool(connect_timeout=connect_timeout_s).exec(stage.race, **options))


def of_another_version(stage: Stage) -> Met:
    broker = stage.start_broker(nothing)
    future = stage.submit()
    stage.wait_until(lambda: broker.of(Submit))
    broker.say_frames([msgpack.packb([FOREIGN_VERSION, "WHO"])])
    return failure(future)


def shut_down_before_the_answer(stage: Stage) -> Met:
    """Does what the interpreter's exit does."""
    broker = stage.start_broker(nothing)
    pool = stage.make_pool()
    future = pool.exec(stage.race)
    stage.wait_until(lambda: broker.of(Submit))
    pool._connected().stop()
    pool._connected().join(BOUND_S)  # who asked before is left waiting
    return failure(future)


@contextmanager
def no_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def of_a_dead_thread(stage: Stage) -> Met:
    broker = stage.start_broker(nothing)
    future = stage.submit()
    stage.wait_until(lambda: broker.of(Submit))
    with no_descriptors():
        broker.say(Who())  # the next session then fails to open its socket
        return failure(future)


def inherited(stage: Stage) -> Met:
    future = stage.submit()
    return _in_child(lambda: future.exception(BOUND_S)), future.task_id


def _in_child(meet: Callable[[], BaseException | None]) -> PoolForkedError:
    """The error that a forked child gets."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            error = meet()
            os.write(write, str(error).encode() if isinstance(error, PoolForkedError) else b"")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        message = told.read()
    os.waitpid(child, 0)
    assert message
    return PoolForkedError(message)


OF_A_TASK: list[Any] = [
    pytest.param(
        lambda stage: worked(stage, stage.race | {"race_number": "7"}),
        InvalidRaceError, "correct it and submit it again", id="invalid race",
    ),
    pytest.param(
        lambda stage: worked(stage, f'{{"id": "{RACE_ID}", "name": '.encode()),
        InvalidRaceError, "correct it and submit it again", id="half a body",
    ),
    pytest.param(
        lambda stage: worked(stage, RaceData.parse(stage.race), returns=KeyError("no such horse")),
        TransformError, "its traceback is in .remote_traceback", id="the transform raised",
    ),
    pytest.param(
        lambda stage: worked(stage, returns=object()), TransformError, ".remote_traceback", id="result cannot travel"
    ),
    pytest.param(
        lambda stage: answered(stage, Outcome.OK, b"\xc1"),
        TransformError, "install the same racepool for workers and clients", id="answer cannot be read",
    ),
    pytest.param(crashed, WorkerCrashedError, "look for worker_lost in the broker's log", id="crashed"),
    pytest.param(
        lambda stage: answered(stage, Outcome.RUN_TIMEOUT),
        TaskTimeoutError, "raise run_timeout_s if the work may take longer", id="running",
    ),
    pytest.param(
        lambda stage: answered(stage, Outcome.QUEUE_TIMEOUT),
        TaskTimeoutError, "add workers, or raise queue_timeout_s", id="queued",
    ),
    pytest.param(
        lambda stage: without_a_broker(stage, connect_timeout_s=60, queue_timeout_s=0.1),
        TaskTimeoutError, " s: is `racepool up` running", id="queued without a broker",
    ),
    pytest.param(
        lambda stage: rejected(stage, in_bytes=False),
        BacklogFullError, "(RACEPOOL_BACKLOG_LIMIT); submit again later, or raise the limit", id="backlog",
    ),
    pytest.param(
        lambda stage: rejected(stage, in_bytes=True),
        BacklogFullError, "(RACEPOOL_BACKLOG_BYTES); submit again later, or raise the limit", id="backlog in bytes",
    ),
    pytest.param(
        larger_than_the_broker_takes, PayloadTooLargeError, "raise RACEPOOL_PAYLOAD_LIMIT for broker", id="task",
    ),
    pytest.param(
        lambda stage: worked(stage, returns="x" * 5000, limit_bytes=2000),
        PayloadTooLargeError, "raise RACEPOOL_PAYLOAD_LIMIT for broker", id="result",
    ),
    pytest.param(without_a_broker, BrokerUnavailableError, "is `racepool up` running", id="no broker"),
    pytest.param(of_another_version, ProtocolMismatchError, "install the same racepool for both", id="version"),
    pytest.param(shut_down_before_the_answer, PoolClosedError, "submit it to a new pool", id="closed"),
    pytest.param(inherited, PoolForkedError, "call exec() again here", id="forked"),
    pytest.param(of_a_dead_thread, PoolBrokenError, "make a new pool", id="broken"),
]  # fmt: skip


@pytest.mark.parametrize(("meet", "kind", "remedy"), OF_A_TASK)
def test_error_of_a_task_names_the_task_its_race_and_the_remedy(
    stage: Stage, meet: Callable[[Stage], Met], kind: type[PoolError], remedy: str
) -> None:
    error, task_id = meet(stage)

    assert type(error) is kind
    assert f"task {task_id} (race {RACE_ID})" in str(error)
    assert is_documented(error)
    assert remedy in str(error)


def test_every_error_is_met() -> None:
    kinds = {case.values[1] for case in [*OF_A_TASK, *OF_NO_TASK]}

    assert kinds == set(PoolError.__subclasses__())


# --- before there is a task -------------------------------------------------------------------------------------------


def full(stage: Stage) -> Met:
    pool = stage.make_pool(max_in_flight=1)
    pool.exec(stage.race)
    return refusal(pool, stage.race)


def closed(stage: Stage) -> Met:
    pool = stage.make_pool()
    pool.shutdown()
    return refusal(pool, stage.race)


def that_cannot_start(stage: Stage) -> Met:
    pool = stage.make_pool()
    with no_descriptors():
        met = refusal(pool, stage.race)
    stage.start_broker()
    assert pool.exec(stage.race).exception(BOUND_S) is None
    return met


def misconfigured(stage: Stage) -> Met:
    stage.patch.setenv("RACEPOOL_WORKERS", "0")
    return failure(ZmqPool().exec(stage.race))


def exposed(stage: Stage) -> Met:
    stage.run_dir.chmod(0o755)
    return failure(ZmqPool().exec(stage.race))


def at_noon(stage: Stage, race: object = None) -> Met:
    polled_at = datetime(2026, 1, 31, 12, 0)  # noqa: DTZ001  # that is the point
    return refusal(stage.make_pool(), stage.race if race is None else race, polled_at=polled_at)


def asked(stage: Stage, ask: Callable[[ZmqPool], object]) -> Met:
    try:
        ask(stage.make_pool(connect_timeout=0.2))
    except PoolError as error:
        return error, None
    return None, None


def stats_of_another_version(stage: Stage) -> Met:
    broker = stage.start_broker(nothing)
    pool = stage.make_pool()
    pool.exec(stage.race)
    stage.wait_until(lambda: broker.of(Submit))
    question = pool._connected().ask_stats()
    broker.say_frames([msgpack.packb([FOREIGN_VERSION, "WHO"])])
    return question.exception(BOUND_S), None


def inherited_iteration(stage: Stage) -> Met:
    stage.start_broker()
    results = stage.make_pool().as_completed([stage.race] * 3)
    next(results)

    def go_on() -> BaseException | None:
        try:
            next(results)
        except PoolForkedError as error:
            return error
        return None

    return _in_child(go_on), None


def misspelt_dsn(_stage: Stage) -> Met:
    try:
        PostgresStore("postgresq://racing@db/racing")
    except PoolError as error:
        return error, None
    return None, None


NAMED, NOT_TOLD = True, False
OF_NO_TASK: list[Any] = [
    pytest.param(
        lambda stage: refusal(stage.make_pool(), stage.race | {"extra": object()}),
        InvalidRaceError, NAMED, "correct it and submit it again", id="mapping that cannot be packed",
    ),
    pytest.param(at_noon, InvalidRaceError, NAMED, "such as datetime.now(UTC); correct it", id="mapping at noon"),
    pytest.param(
        lambda stage: at_noon(stage, RaceData.parse(stage.race)),
        InvalidRaceError, NAMED, "such as datetime.now(UTC)", id="RaceData at noon",
    ),
    pytest.param(
        lambda stage: at_noon(stage, f'{{"id": "{RACE_ID}", "name": "half a bod'),
        InvalidRaceError, NAMED, "such as datetime.now(UTC)", id="text at noon",
    ),
    pytest.param(
        lambda stage: at_noon(stage, memoryview(f'{{"data": {{"race": {{"event_id": "{RACE_ID}"}}}}}}'.encode())),
        InvalidRaceError, NAMED, "such as datetime.now(UTC)", id="buffer at noon",
    ),
    pytest.param(
        lambda stage: refusal(stage.make_pool(), stage.race, previous=[5]),
        InvalidRaceError, NAMED, "correct it and submit it again", id="previous",
    ),
    pytest.param(
        lambda stage: refusal(stage.make_pool(), 5),
        InvalidRaceError, NOT_TOLD, "give RaceData, a mapping, or JSON as bytes or str", id="no race",
    ),
    pytest.param(
        lambda stage: refusal(stage.make_pool(), "\ud800"),
        InvalidRaceError, NOT_TOLD, "correct it and submit it again", id="no Unicode",
    ),
    pytest.param(
        lambda stage: refusal(stage.make_pool(payload_limit=1024), stage.race | {"padding": "x" * 1024}),
        PayloadTooLargeError, NAMED, "raise RACEPOOL_PAYLOAD_LIMIT for broker, workers and clients", id="too large",
    ),
    pytest.param(
        full, BacklogFullError, NOT_TOLD, "(RACEPOOL_MAX_IN_FLIGHT); submit again later, or raise", id="full"
    ),
    pytest.param(closed, PoolClosedError, NOT_TOLD, "make a new one", id="closed"),
    pytest.param(that_cannot_start, PoolBrokenError, NOT_TOLD, "free threads or file descriptors", id="cannot start"),
    pytest.param(
        misconfigured, SettingsError, NOT_TOLD, "RACEPOOL_WORKERS=0: Input should be greater than", id="setting"
    ),
    pytest.param(exposed, SettingsError, NOT_TOLD, "chmod 700 it or choose another", id="directory"),
    pytest.param(
        lambda stage: asked(stage, ZmqPool.stats),
        BrokerUnavailableError, NOT_TOLD, "is `racepool up` running", id="stats",
    ),
    pytest.param(
        lambda stage: asked(stage, ZmqPool.wait_for_workers),
        BrokerUnavailableError, NOT_TOLD, "is `racepool up` running", id="workers",
    ),
    pytest.param(
        stats_of_another_version, ProtocolMismatchError, NOT_TOLD, "install the same racepool", id="stats' version"
    ),
    pytest.param(inherited_iteration, PoolForkedError, NOT_TOLD, "start a new one here", id="iteration"),
    pytest.param(misspelt_dsn, StoreError, NOT_TOLD, "must be as postgresql://", id="dsn"),
]  # fmt: skip


@pytest.mark.parametrize(("meet", "kind", "is_race_told", "remedy"), OF_NO_TASK)
def test_error_without_a_task_names_the_race_where_it_was_looked_at_and_the_remedy(
    stage: Stage,
    meet: Callable[[Stage], Met],
    kind: type[PoolError],
    is_race_told: bool,  # noqa: FBT001
    remedy: str,
) -> None:
    """This is by design: `exec` raises these errors before there is a task, or they concern no race."""
    error, task_id = meet(stage)

    assert type(error) is kind
    assert task_id is None
    assert (f"(race {RACE_ID})" in str(error)) is is_race_told
    assert is_documented(error)
    assert remedy in str(error)


ATTRIBUTES: list[Any] = [
    pytest.param(
        lambda stage: worked(stage, stage.race | {"entrants": [{"entrantId": "a", "name": 5}]}),
        {"errors": [("entrants.0.runnerNumber", "is required"), ("entrants.0.name", "must be text")]},
        id="invalid race",
    ),
    pytest.param(
        lambda stage: worked(stage, returns=KeyError("no such horse")),
        {"type": "KeyError", "message": "'no such horse'"}, id="the transform raised",
    ),
    pytest.param(crashed, {"attempts": [("worker-0", None), ("worker-1", 9)]}, id="crashed"),
    pytest.param(
        lambda stage: answered(stage, Outcome.RUN_TIMEOUT), {"state": "running", "timeout_s": 7}, id="running"
    ),
    pytest.param(
        lambda stage: answered(stage, Outcome.QUEUE_TIMEOUT), {"state": "queued", "timeout_s": 9}, id="queued"
    ),
    pytest.param(
        lambda stage: without_a_broker(stage, connect_timeout_s=60, queue_timeout_s=0.1),
        {"state": "queued", "timeout_s": 0.1}, id="queued without a broker",
    ),
    pytest.param(lambda stage: rejected(stage, in_bytes=False), {"depth": 90, "limit": 100}, id="backlog"),
    pytest.param(full, {"depth": 1, "limit": 1}, id="full"),
    pytest.param(larger_than_the_broker_takes, {"limit_bytes": PAYLOAD_LIMIT}, id="task"),
    pytest.param(
        lambda stage: worked(stage, returns="x" * 5000, limit_bytes=2000),
        {"size_bytes": 5012, "limit_bytes": None}, id="result",
    ),
    pytest.param(of_another_version, {"ours": PROTOCOL_VERSION, "theirs": FOREIGN_VERSION}, id="version"),
]  # fmt: skip


@pytest.mark.parametrize(("meet", "attributes"), ATTRIBUTES)
def test_attributes_tell_the_failure(stage: Stage, meet: Callable[[Stage], Met], attributes: dict[str, object]) -> None:
    error, _ = meet(stage)

    assert {name: getattr(error, name) for name in attributes} == attributes


def test_traceback_of_the_transform_comes_along(stage: Stage) -> None:
    error, _ = worked(stage, returns=KeyError("no such horse"))

    assert isinstance(error, TransformError)
    assert "Traceback" in error.remote_traceback
    assert "raise returns" in error.remote_traceback


def test_error_that_ends_a_map_names_the_race(stage: Stage) -> None:
    """Nothing else says which race it was."""
    stage.start_broker()
    races: list[Any] = [stage.race | {"id": "r-41"}, stage.race | {"extra": object()}]

    with pytest.raises(InvalidRaceError, match=rf"\(race {RACE_ID}\).*cannot be packed"):
        list(stage.make_pool().map(races))


def test_thread_that_cannot_start_leaves_no_thread_behind(stage: Stage) -> None:
    before = threading.active_count()

    error, _ = that_cannot_start(stage)

    assert isinstance(error, PoolBrokenError)
    assert isinstance(error.__cause__, OSError)
    assert threading.active_count() == before + 2  # the broker's, and that of the second attempt


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_race_id_is_named_escaped(text: str) -> None:
    assert race_of({"id": text}).isprintable()
    assert race_id({"id": "r1\x1b"}) == "r1\x1b", "a program gets it as it is"
