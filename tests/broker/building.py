"""Short names for the broker's tests: peers, ids, messages and expected actions."""

from collections.abc import Iterable
from typing import Any

from racepool.broker.actions import Action, Report, SendToClient, SendToWorker
from racepool.broker.core import SETTLE_S, BrokerCore
from racepool.protocol.errors import CrashedAttempt
from racepool.protocol.failures import pack_crashes
from racepool.protocol.messages import (
    Answer,
    Assign,
    Epoch,
    Heartbeat,
    Hello,
    Id,
    Name,
    Outcome,
    Payload,
    Ready,
    Result,
    Submit,
    Welcome,
)
from racepool.protocol.settings import Settings

EPOCH = Epoch(b"epoch-01")
ALICE, ALICE_AGAIN, BOB = b"peer-alice", b"peer-alice-again", b"peer-bob"
W1, W2, W3, W1_AGAIN = b"peer-w1", b"peer-w2", b"peer-w3", b"peer-w1-again"
H1 = b"peer-heartbeat-1"
WELCOME = Welcome(EPOCH, Settings.model_fields["payload_limit"].default, 2000)
LIVENESS_S: float = Settings.model_fields["liveness"].default


def an_id(name: str) -> Id:
    return Id(name.encode().ljust(16, b"."))


def hello(name: str = "alice", held: int = 0, number: int = 1) -> Hello:
    return Hello(an_id(name), number, 1, held)


def submit(
    name: str,
    run_timeout_ms: int = 30_000,
    payload: bytes = b"race",
    *,
    waited_ms: int = 0,
    again: bool = False,
    is_shared: bool = False,
) -> Submit:
    return Submit(an_id(name), run_timeout_ms, waited_ms, again, is_shared, payload)


def ready(name: str = "worker-1", pid: int = 101, session: str = "", number: int = 1, later_ms: int = 0) -> Ready:
    return Ready(an_id(session or name), number, Name(name), pid, Name("0.1.0"), 1_700_000_000_000 + later_ms)


def beat(
    name: str = "worker-1", pid: int = 101, session: str = "", *, busy: bool = False, draining: bool = False
) -> Heartbeat:
    return Heartbeat(
        an_id(session or name), Name(name), pid, Name("0.1.0"), 1_700_000_000_000, busy, draining, 50_000_000
    )


def task(
    name: str,
    lease: int,
    attempt: int = 1,
    *,
    run_timeout_ms: int = 30_000,
    payload: bytes = b"race",
    epoch: Epoch = EPOCH,
    is_shared: bool = False,
) -> Assign:
    return Assign(epoch, lease, an_id(name), attempt, run_timeout_ms, is_shared, payload)


def result(
    name: str,
    lease: int,
    outcome: Outcome = Outcome.OK,
    payload: bytes = b"done",
    epoch: Epoch = EPOCH,
    *,
    recycle: bool = False,
) -> Result:
    return Result(epoch, lease, an_id(name), outcome, recycle, payload)


def answer(
    name: str,
    outcome: Outcome = Outcome.OK,
    attempts: int = 1,
    payload: bytes = b"done",
    *,
    queued_ms: int = 0,
    run_ms: int = 0,
    worker: str | None = "worker-1",
) -> Answer:
    last = None if worker is None else Name(worker)
    return Answer(an_id(name), outcome, attempts, queued_ms * 1000, run_ms * 1000, last, payload)


def crashed(name: str, *workers: str, queued_ms: int, run_ms: int) -> Answer:
    payload = pack_crashes([CrashedAttempt(worker, None) for worker in workers])
    return answer(name, Outcome.CRASHED, len(workers), payload, queued_ms=queued_ms, run_ms=run_ms, worker=workers[-1])


def ended(message: object) -> tuple[Id, Outcome, int, Payload]:
    """All of an answer but what differs from run to run: how long the task waited and ran, and where."""
    assert isinstance(message, Answer)
    return message.task_id, message.outcome, message.attempts, message.payload


def with_client(broker: BrokerCore, *tasks: str) -> BrokerCore:
    broker.on_client(ALICE, hello(), now=0.0)
    for name in tasks:
        broker.on_client(ALICE, submit(name), now=0.0)
    return broker


def with_workers(broker: BrokerCore, count: int = 1, *, local: bool = True) -> BrokerCore:
    for index in range(1, count + 1):
        pid = 100 + index
        broker.on_worker((W1, W2, W3)[index - 1], ready(f"worker-{index}", pid), 0.0, pid if local else None)
    return broker


def die(broker: BrokerCore, *names: str, now: float = 0.5) -> list[Action]:
    """Ends these processes, and calls the tick after the pool has settled."""
    return broker.on_process_exit([an_id(name) for name in names], now) + broker.on_tick(now + SETTLE_S)


def deeds(actions: Iterable[Action]) -> list[Action]:
    """All actions but the reports."""
    return [action for action in actions if not isinstance(action, Report)]


def told(actions: Iterable[Action]) -> list[str]:
    """The events that are reported."""
    return [action.event for action in actions if isinstance(action, Report)]


def report(actions: Iterable[Action], event: str) -> dict[str, object]:
    """The fields of the one report of this event."""
    (fields,) = [dict(action.fields) for action in actions if isinstance(action, Report) and action.event == event]
    return fields


def assigned(actions: Iterable[Action]) -> list[tuple[bytes, str]]:
    """Which peer was given which task, in order."""
    return [
        (action.peer, action.message.task_id.rstrip(b".").decode())
        for action in actions
        if isinstance(action, SendToWorker) and isinstance(action.message, Assign)
    ]


def answered(actions: Iterable[Action]) -> list[tuple[bytes, str, Outcome]]:
    """Which peer got which answer, in order."""
    return [
        (action.peer, action.message.task_id.rstrip(b".").decode(), action.message.outcome)
        for action in actions
        if isinstance(action, SendToClient) and isinstance(action.message, Answer)
    ]


def state_of(broker: BrokerCore) -> dict[str, Any]:
    """All state of the broker but its counters, to compare before and after."""
    return {
        "tasks": {id_: _slots(task) for id_, task in broker.ledger._tasks.items()},
        "backlog": [seq for seq, task in sorted(broker.ledger.backlog._heap) if task.is_queued],
        "workers": {id_: _slots(worker) for id_, worker in broker.roster.workers.items()},
        "idle": list(broker.roster._idle),
        "clients": {id_: _slots(client) for id_, client in broker.clients.by_id.items()},
        "peers": {peer: client.id for peer, client in broker.clients.by_peer.items()},
        "lease": broker.assignments.lease,
    }


def _slots(thing: Any) -> dict[str, Any]:  # noqa: ANN401  # a task, worker or client
    values = {name: getattr(thing, name) for name in thing.__slots__}
    values |= {"task": values["task"] and values["task"].id} if "task" in values else {}
    values |= {"prefetched": values["prefetched"] and values["prefetched"].lease} if "prefetched" in values else {}
    values |= {"client": values["client"].id} if "client" in values else {}
    values |= {"tasks": sorted(values["tasks"])} if "tasks" in values else {}
    values |= {"deaths": list(values["deaths"])} if "deaths" in values else {}
    values.pop("last_seen", None)
    return values
