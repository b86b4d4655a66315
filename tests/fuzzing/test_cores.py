"""Any valid messages from any peers in any order: the cores keep their invariants, and nothing ends twice."""

from collections import Counter
from typing import Any, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from racepool.broker.actions import SendByValue, SendToClient, SendToWorker
from racepool.broker.core import BrokerCore
from racepool.client.actions import Deliver, Fail, SendTask
from racepool.client.core import ClientCore, Limits
from racepool.client.core import Identity as ClientIdentity
from racepool.client.task import ClientTask
from racepool.protocol.frames import (
    FROM_CLIENT,
    FROM_HEARTBEAT,
    FROM_WORKER,
    TO_CLIENT,
    TO_WORKER,
    Inlet,
    decode,
    encode,
)
from racepool.protocol.messages import MAX_INT, Answer, Assign, Epoch, Id, Name, Outcome, Payload, Result, Submit, Text
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import Settings
from racepool.worker.core import Execute, Identity, WorkerCore
from racepool.worker.core import Send as WorkerSend

BACKLOG_LIMIT = 3
EPOCH = Epoch(b"epoch-01")
IDS = [Id(bytes(15) + bytes([number])) for number in range(6)]
PEERS = st.sampled_from([b"peer-a", b"peer-b", b"peer-c"])
PIDS = st.sampled_from([None, 1, 2])
STEPS_S = st.sampled_from([0.0, 0.06, 0.5, 3.0])
_FEW: dict[object, st.SearchStrategy[Any]] = {  # few values, so that messages refer to the same things
    Id: st.sampled_from(IDS),
    Epoch: st.sampled_from([EPOCH, Epoch(b"epoch-02")]),
    Name: st.sampled_from([Name("worker-0"), Name("worker-1")]),
    Text: st.sampled_from([Text(""), Text("no such module")]),
    Name | None: st.sampled_from([None, Name("worker-0")]),
    int: st.sampled_from([0, 1, 2, 3, 100, 60_000, MAX_INT]),
    bool: st.booleans(),
    bytes: st.sampled_from([b"", b"x", b"x" * 60]),
    Payload: st.sampled_from([b"", b"x", b"x" * 60]),
    Outcome: st.sampled_from(list(Outcome)),
}


def any_of(inlet: Inlet[Any]) -> st.SearchStrategy[Any]:
    kinds: list[Any] = [command.message for command in inlet.commands.values()]
    return st.one_of(
        [st.builds(kind, **{name: _FEW[hint] for name, hint in get_type_hints(kind).items()}) for kind in kinds]
    )


BROKER_EVENTS = st.one_of(
    st.tuples(st.just("on_client"), PEERS, any_of(FROM_CLIENT)),
    st.tuples(st.just("on_worker"), PEERS, any_of(FROM_WORKER), PIDS),
    st.tuples(st.just("on_worker_nonsense"), PEERS),
    st.tuples(st.just("on_heartbeat"), PEERS, any_of(FROM_HEARTBEAT), PIDS),
    st.tuples(st.just("on_client_unreachable"), PEERS),
    st.tuples(st.just("on_worker_unreachable"), PEERS, any_of(TO_WORKER)),
    st.tuples(st.just("on_unreadable"), PEERS, _FEW[int], st.just("why")),
    st.tuples(st.just("finish"), PEERS),
    st.tuples(st.just("on_process_exit"), st.lists(st.sampled_from(IDS), max_size=2)),
    st.tuples(st.just("on_probe"), st.sampled_from(IDS), st.booleans()),
    st.tuples(st.just("on_pause")),
)


def _perform(broker: BrokerCore, event: tuple[Any, ...], now: float) -> list[Any]:
    match event:
        case "on_worker" | "on_heartbeat" as name, peer, message, pid:
            return list(getattr(broker, name)(peer, message, now, pid))
        case "on_probe", incarnation, has_progress:
            return broker.on_probe(incarnation, now, has_progress=has_progress)
        case "finish", peer:
            worker = broker.roster.at(peer)
            if worker is None or worker.task is None:
                return []
            result = Result(EPOCH, worker.lease, worker.task.id, Outcome.OK, recycle=False, payload=b"")
            return broker.on_worker(peer, result, now)
        case "on_client_unreachable", peer:
            return broker.on_client_unreachable(peer)
        case name, *arguments:
            return list(getattr(broker, name)(*arguments, now))
        case _:
            raise AssertionError(event)


@settings(deadline=None)
@given(events=st.lists(st.tuples(BROKER_EVENTS, STEPS_S), max_size=60))
def test_broker_keeps_its_books_whatever_is_said(events: list[tuple[tuple[Any, ...], float]]) -> None:
    broker = BrokerCore(
        Settings.load(backlog_limit=BACKLOG_LIMIT, backlog_bytes=100, broker_memory_limit=0, max_attempts=2), EPOCH
    )
    now = 0.0
    unanswered: Counter[bytes] = Counter()
    leases = []
    for event, step_s in events:
        now += step_s
        if event[0] == "on_client" and isinstance(event[2], Submit):
            unanswered[event[2].task_id] += 1
        for action in [*_perform(broker, event, now), *broker.on_process_exit((), now), *broker.on_tick(now)]:
            match action:
                case SendToWorker(_, Assign(lease=lease)) | SendByValue(_, Assign(lease=lease)):
                    leases.append(lease)
                case SendToClient(_, Answer(task_id=task_id) as answer):
                    assert decode(encode(answer), TO_CLIENT) == answer
                    assert (answer.worker is None) == (answer.attempts == 0)
                    unanswered[task_id] -= 1
                    assert unanswered[task_id] >= 0
        assert broker.audit() == []
        assert broker.ledger.backlog.depth <= 2 * BACKLOG_LIMIT + len(IDS)  # the worker's task goes back to its place
    assert leases == sorted(set(leases))


CLIENT_EVENTS = st.one_of(
    st.tuples(st.just("hear"), any_of(TO_CLIENT)),
    st.tuples(st.just("submit")),
    st.tuples(st.just("cancel"), st.sampled_from(IDS), st.booleans()),
    st.tuples(st.just("foreign"), st.just(9)),
    st.tuples(st.just("stats")),
    st.tuples(st.just("pause")),
)
"""What the broker may say, and what callers may do."""


@settings(deadline=None)
@given(events=st.lists(st.tuples(CLIENT_EVENTS, STEPS_S), max_size=60))
def test_client_ends_each_task_once_whatever_it_hears(  # noqa: C901  # one case for each event
    events: list[tuple[tuple[Any, ...], float]],
) -> None:
    core = ClientCore(ClientIdentity(IDS[0], 1), "ipc:///x", Limits(0.25, 2.0, 30.0))
    now = 0.0
    open_tasks: set[Id] = set()
    made = 0
    core.start(now)
    for event, step_s in events:
        now += step_s
        actions: list[Any] = []
        match event:
            case "hear", message:
                actions = core.on_message(message, now)
            case ("submit",):
                task_id = Id(made.to_bytes(16, "big"))  # the first ones are those of IDS
                made += 1
                open_tasks.add(task_id)
                actions = core.on_submit(ClientTask(task_id, Parcel(b"", b"x" * 20_000), 1_000, 5.0, now, now), now)
            case "cancel", task_id, kill:
                open_tasks.discard(task_id)
                actions = core.on_withdraw(task_id, kill=kill)
            case "foreign", version:
                actions = core.on_foreign_version(version)
            case ("stats",):
                actions = core.on_ask_stats(now)
            case ("pause",):
                core.on_pause(now)
        for action in [*actions, *core.on_tick(now)]:
            if isinstance(action, Deliver | Fail):
                open_tasks.remove(action.task.id)  # a second end raises KeyError
            elif isinstance(action, SendTask):
                assert action.task.id in open_tasks
        assert core.window.tasks.keys() == open_tasks
        assert core.audit() == []


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(st.one_of(any_of(TO_WORKER), st.sampled_from(["begin", "finish", "lost", "terminate"])), STEPS_S),
        max_size=60,
    )
)
def test_worker_does_one_task_at_a_time_whatever_it_hears(events: list[tuple[Any, float]]) -> None:
    numbers = iter(range(1_000_000))
    identity = Identity(Name("worker-0"), 1, Name("1"), 0)
    core = WorkerCore(identity, lambda: Id(next(numbers).to_bytes(16, "big")), liveness_s=2.0, max_tasks=0)
    now = 0.0
    in_hand: Assign | None = None
    core.start(now)
    for event, step_s in events:
        now += step_s
        if core.is_leaving and in_hand is None:
            break
        actions: list[Any] = []
        match event:
            case "begin":
                actions = core.begin()
            case "finish" if in_hand is not None:
                actions = core.on_finished(Outcome.OK, b"", now)
                results = [each.message for each in actions if isinstance(each, WorkerSend)]
                assert {each.task_id for each in results if isinstance(each, Result)} <= {in_hand.task_id}
                in_hand = None
            case "lost":
                actions = core.on_session_lost(core.session.id, now)
            case "terminate" if not core.is_leaving:
                actions = core.on_terminate()
            case str():
                pass
            case message:
                actions = core.on_message(message, now)
        for action in [*actions, *core.on_tick(now)]:
            if isinstance(action, Execute):
                assert in_hand is None
                in_hand = action.task
        assert core.task is in_hand
        assert core.audit() == []
