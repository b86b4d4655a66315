"""Random schedules against a model of the promise: FIFO, one answer per task, counters that add up."""

from collections import Counter
from dataclasses import dataclass, field
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from racepool.broker.actions import Action, KillProcess, SendToClient, SendToWorker
from racepool.broker.core import RETURN_S, SETTLE_S, BrokerCore
from racepool.broker.roster import AWAY_S
from racepool.protocol.messages import (
    Answer,
    Assign,
    Bye,
    Cancel,
    Expire,
    Outcome,
    Ping,
    Recall,
    Recycle,
    Returned,
    Waited,
)
from racepool.protocol.settings import Settings
from tests.broker.building import EPOCH, WELCOME, an_id, beat, hello, ready, result, submit

MAX_ATTEMPTS = 2
RUN_TIMEOUT_MS = 3_000


@dataclass
class Wanted:
    """A task as its client sees it."""

    name: str
    number: int
    client: str
    deaths: int = 0
    is_disowned: bool = False
    goes_alone: bool = False
    was_returned: bool = False


@dataclass
class Recalled:
    """What a worker has yet to tell of; without another task it has until the deadline."""

    name: str
    lease: int
    deadline: float = inf
    is_kill_wanted: bool = False

    @property
    def patience_s(self) -> float:
        return RETURN_S if self.is_kill_wanted else RUN_TIMEOUT_MS / 1000


@dataclass
class Model:
    """What must be true, however the broker brings it about."""

    queued: dict[str, Wanted] = field(default_factory=dict)
    held: dict[bytes, tuple[Wanted, int, float]] = field(default_factory=dict)
    seconds: dict[bytes, tuple[Wanted, int]] = field(default_factory=dict)
    recalled: dict[bytes, Recalled] = field(default_factory=dict)
    idle: set[bytes] = field(default_factory=set)
    peers: dict[str, bytes] = field(default_factory=dict)
    due: list[tuple[str, Outcome]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    last_away: float = -inf

    def owned_by(self, client: str) -> list[Wanted]:
        in_hand = [*(held[0] for held in self.held.values()), *(second[0] for second in self.seconds.values())]
        return [task for task in (*self.queued.values(), *in_hand) if task.client == client]

    def end(self, task: Wanted, counter: str, outcome: Outcome) -> None:
        if task.is_disowned:
            return
        self.ends[counter] += 1
        self.due.append((task.name, outcome))

    def lose(self, peer: bytes, *, costs_attempt: bool, now: float, outcome: Outcome | None = None) -> None:
        if peer in self.idle or peer in self.held or peer in self.recalled:
            self.last_away = now
        self.idle.discard(peer)
        self.recalled.pop(peer, None)
        second, _ = self.seconds.pop(peer, (None, 0))
        if second is not None:
            second.goes_alone |= costs_attempt
            self.give_back(second)
        task, _, _ = self.held.pop(peer, (None, 0, 0.0))
        if task is None:
            return
        task.deaths += costs_attempt
        task.goes_alone |= costs_attempt
        if outcome is not None:
            self.end(task, "timed_out", outcome)
        elif task.deaths >= MAX_ATTEMPTS:
            self.end(task, "crashed", Outcome.CRASHED)
        elif not task.is_disowned:
            self.queued[task.name] = task

    def give_back(self, second: Wanted) -> None:
        second.was_returned = True
        if not second.is_disowned:
            self.queued[second.name] = second

    def release(self, peer: bytes, now: float) -> Wanted:
        """Its task is done: it goes on with the second, or is idle if it has told of all that was recalled."""
        task, _, _ = self.held.pop(peer)
        if peer in self.seconds:
            self.held[peer] = (*self.seconds.pop(peer), now + RUN_TIMEOUT_MS / 1000)
        elif peer in self.recalled:
            self.recalled[peer].deadline = now + self.recalled[peer].patience_s
        else:
            self.idle.add(peer)
        return task


class BrokerMachine(RuleBasedStateMachine):
    """The broker under random events; each message that goes out is checked against the model."""

    workers: Bundle[bytes] = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.broker = BrokerCore(Settings.load(max_attempts=MAX_ATTEMPTS, backlog_limit=12), EPOCH)
        self.model = Model()
        self.now = 0.0
        self.made = 0

    # --- what goes out ------------------------------------------------------------------------------------------------

    def check(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SendToWorker(peer, Assign(lease=lease, task_id=task_id, attempt=attempt)):
                    name = task_id.rstrip(b".").decode()
                    first = min(self.model.queued.values(), key=lambda task: task.number)
                    assert name == first.name, "not the oldest that waits"
                    assert attempt > first.deaths
                    if self.model.idle:
                        assert peer in self.model.idle, "this worker is gone, or has its hands full"
                        self.model.idle.remove(peer)
                        self.model.held[peer] = (self.model.queued.pop(name), lease, self.now + RUN_TIMEOUT_MS / 1000)
                    else:
                        assert peer in self.model.held, "this worker is gone, or has nothing before it"
                        assert peer not in {*self.model.seconds, *self.model.recalled}, "its hands are full"
                        alone = self.model.held[peer][0].goes_alone or first.goes_alone or first.was_returned
                        assert not alone, "it is to be alone"
                        self.model.seconds[peer] = (self.model.queued.pop(name), lease)
                case SendToWorker(peer, Recall(lease)):
                    second, second_lease = self.model.seconds.pop(peer)
                    assert lease == second_lease, "it has another second"
                    self.model.recalled[peer] = Recalled(second.name, lease)
                    self.model.give_back(second)
                case SendToWorker(peer, Recycle()):
                    assert self.now >= self.model.last_away + AWAY_S, "somebody is away"
                    self.model.lose(peer, costs_attempt=False, now=self.now)
                case SendToClient(peer, Answer(task_id=task_id, outcome=outcome)):
                    name = task_id.rstrip(b".").decode()
                    assert (name, outcome) in self.model.due, "nobody waits for this answer"
                    self.model.due.remove((name, outcome))
                    assert peer in self.model.peers.values()
                case _:
                    pass
        assert self.model.due == [], "an answer is missing"

    # --- clients ------------------------------------------------------------------------------------------------------

    @initialize(target=workers, count=st.integers(1, 3))
    def begin(self, count: int) -> MultipleResults[bytes]:
        """Two clients, some workers, and a first result: tasks are short, so that seconds are given."""
        for client in ("alice", "bob"):
            self.open_session(client)
        started = self.start(count)
        self.submit_new("alice")
        (peer,) = self.model.held
        self.finish(peer, Outcome.OK, recycle=False)
        return started

    @rule(client=st.sampled_from(["alice", "bob"]))
    def open_session(self, client: str) -> None:
        self.made += 1
        peer = f"peer-{self.made}".encode()
        self.model.peers[client] = peer
        self.check(self.broker.on_client(peer, hello(client), self.now))

    @rule(client=st.sampled_from(["alice", "bob"]))
    def submit_new(self, client: str) -> None:
        self.made += 1
        name = f"t{self.made}"
        if len(self.model.queued) < 12:
            self.model.queued[name] = Wanted(name, self.made, client)
        self.check(self.broker.on_client(self.model.peers[client], submit(name, RUN_TIMEOUT_MS), self.now))

    @rule(client=st.sampled_from(["alice", "bob"]), count=st.integers(2, 6))
    def submit_several(self, client: str, count: int) -> None:
        for _ in range(count):
            self.submit_new(client)

    @precondition(lambda self: self.model.queued or self.model.held)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        task = self.any_task(data)
        if task.is_disowned:
            self.model.ends["cancelled"] -= 1
        task.is_disowned = False
        self.check(self.broker.on_client(self.model.peers[task.client], submit(task.name), self.now))

    @precondition(lambda self: self.model.queued or self.model.held)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data: st.DataObject, *, kill: bool) -> None:
        task = self.any_task(data)
        self.model.ends["cancelled"] += not task.is_disowned
        task.is_disowned = True
        holder = next((peer for peer, held in self.model.held.items() if held[0] is task), None)
        if holder is not None and kill:
            self.model.lose(holder, costs_attempt=True, now=self.now)
        self.model.queued.pop(task.name, None)
        actions = self.broker.on_client(self.model.peers[task.client], Cancel(an_id(task.name), kill), self.now)
        self.check(actions)
        assert any(isinstance(action, KillProcess) for action in actions) == (holder is not None and kill)
        for recalled in self.model.recalled.values():
            if kill and recalled.name == task.name:
                recalled.is_kill_wanted = True
                recalled.deadline = min(recalled.deadline, self.now + RETURN_S) if recalled.deadline < inf else inf

    @precondition(lambda self: self.model.queued or self.model.held)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        task = self.any_task(data)
        is_queued = self.model.queued.pop(task.name, None) is not None
        if is_queued:
            self.model.end(task, "timed_out", Outcome.QUEUE_TIMEOUT)
        actions = self.broker.on_client(self.model.peers[task.client], Expire(an_id(task.name), 0), self.now)
        self.check(actions)
        assert is_queued != any(isinstance(each, SendToClient) and isinstance(each.message, Waited) for each in actions)

    @rule(client=st.sampled_from(["alice", "bob"]))
    def say_goodbye_and_return(self, client: str) -> None:
        for task in self.model.owned_by(client):
            if not task.is_disowned:
                self.model.ends["abandoned"] += 1
        self.model.queued = {name: task for name, task in self.model.queued.items() if task.client != client}
        self.check(self.broker.on_client(self.model.peers[client], Bye(), self.now))
        for peer, (task, lease, deadline) in list(self.model.held.items()):
            if task.client == client:  # nobody will ask for it again under this name
                self.model.held[peer] = (
                    Wanted(task.name, task.number, "nobody", task.deaths, is_disowned=True),
                    lease,
                    deadline,
                )
        for peer, (task, lease) in list(self.model.seconds.items()):
            if task.client == client:
                self.model.seconds[peer] = (
                    Wanted(task.name, task.number, "nobody", task.deaths, is_disowned=True),
                    lease,
                )
        self.open_session(client)

    @rule(client=st.sampled_from(["alice", "bob"]))
    def become_unreachable_and_return(self, client: str) -> None:
        self.check(self.broker.on_client_unreachable(self.model.peers[client]))
        self.open_session(client)

    def any_task(self, data: st.DataObject) -> Wanted:
        """One that its client may still speak of."""
        tasks = [task for client in ("alice", "bob") for task in self.model.owned_by(client)]
        if not tasks:
            self.made += 1
            task = Wanted(f"t{self.made}", self.made, "alice")
            self.model.queued[task.name] = task
            self.check(self.broker.on_client(self.model.peers["alice"], submit(task.name, RUN_TIMEOUT_MS), self.now))
            return task
        return data.draw(st.sampled_from(tasks))

    # --- workers ------------------------------------------------------------------------------------------------------

    @rule(target=workers, count=st.integers(1, 3))
    def start_workers(self, count: int) -> MultipleResults[bytes]:
        return self.start(count)

    def start(self, count: int) -> MultipleResults[bytes]:
        peers = []
        for _ in range(count):
            self.made += 1
            peer = f"w{self.made}".encode()
            peers.append(peer)
            self.model.idle.add(peer)
            self.check(self.broker.on_worker(peer, ready(peer.decode(), self.made), self.now, self.made))
        return multiple(*peers)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def finish_one(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.model.held))), Outcome.OK, recycle=False)

    @rule(peer=workers, outcome=st.sampled_from([Outcome.OK, Outcome.RAISED]), recycle=st.booleans())
    def finish(self, peer: bytes, outcome: Outcome, *, recycle: bool) -> None:
        if peer not in self.model.held:
            return
        lease = self.model.held[peer][1]
        task = self.model.release(peer, self.now)
        self.model.end(task, "completed" if outcome is Outcome.OK else "failed", outcome)
        self.check(self.broker.on_worker(peer, result(task.name, lease, outcome, recycle=recycle), self.now))

    @precondition(lambda self: self.model.recalled)
    @rule(data=st.data(), was_begun=st.booleans())
    def tell_of_what_was_recalled(self, data: st.DataObject, *, was_begun: bool) -> None:
        peer = data.draw(st.sampled_from(sorted(self.model.recalled)))
        recalled = self.model.recalled[peer]
        if was_begun and peer in self.model.held:
            return
        del self.model.recalled[peer]
        if peer not in self.model.held:
            self.model.idle.add(peer)
        told = result(recalled.name, recalled.lease) if was_begun else Returned(EPOCH, recalled.lease)
        self.check(self.broker.on_worker(peer, told, self.now))

    @rule(peer=workers, lease_offset=st.sampled_from([-2, -1, 1, 2]), data=st.data())
    def send_a_stale_result(self, peer: bytes, lease_offset: int, data: st.DataObject) -> None:
        names = [*self.model.queued, *(held[0].name for held in self.model.held.values()), "unknown"]
        lease = max(0, self.model.held.get(peer, (None, 5, 0.0))[1] + lease_offset)
        if peer in self.model.recalled and self.model.recalled[peer].lease == lease:
            return
        actions = self.broker.on_worker(peer, result(data.draw(st.sampled_from(names)), lease), self.now)
        self.check(actions)
        assert not any(isinstance(action, SendToClient) for action in actions)

    @rule(peers=st.lists(consumes(workers), min_size=1, max_size=4, unique=True))
    def kill_some_at_once(self, peers: list[bytes]) -> None:
        for peer in peers:
            self.model.lose(peer, costs_attempt=True, now=self.now)
        self.check(self.broker.on_process_exit([an_id(peer.decode()) for peer in peers], self.now))

    @rule()
    def settle(self) -> None:
        self.pass_time(SETTLE_S)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def kill_a_busy_one(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.model.held)))
        self.model.lose(peer, costs_attempt=True, now=self.now)
        self.check(self.broker.on_process_exit([an_id(peer.decode())], self.now))

    @rule(peer=consumes(workers))
    def say_goodbye(self, peer: bytes) -> None:
        self.model.lose(peer, costs_attempt=False, now=self.now)
        self.check(self.broker.on_worker(peer, Bye(), self.now))

    @rule(peer=consumes(workers))
    def cannot_be_reached(self, peer: bytes) -> None:
        self.model.lose(peer, costs_attempt=False, now=self.now)
        self.check(self.broker.on_worker_unreachable(peer, WELCOME, self.now))

    # --- time ---------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.5]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Everybody beats; run timeouts end, and patience with seconds."""
        self.now += seconds
        for client, peer in self.model.peers.items():
            assert client
            self.broker.on_client(peer, Ping(0), self.now)
        for peer in {*self.model.idle, *self.model.held, *self.model.recalled}:
            self.broker.on_heartbeat(b"h", beat(peer.decode(), busy=peer not in self.model.idle), self.now)
        waiting = list(self.model.seconds.values())
        self.check(self.broker.on_process_exit((), self.now))
        assert not [each for each in waiting if each in self.model.seconds.values()], "it waits behind a slow task"
        for peer, recalled in list(self.model.recalled.items()):
            if recalled.deadline <= self.now:
                self.model.lose(peer, costs_attempt=True, now=self.now)
        for peer, (_, _, deadline) in list(self.model.held.items()):
            if deadline <= self.now:
                self.model.lose(peer, costs_attempt=True, now=self.now, outcome=Outcome.RUN_TIMEOUT)
        self.check(self.broker.on_tick(self.now))

    # --- always -------------------------------------------------------------------------------------------------------

    @invariant()
    def the_books_are_in_order(self) -> None:
        assert self.broker.audit() == []

    @invariant()
    def nobody_idles_while_a_task_waits(self) -> None:
        assert not (self.model.idle and self.model.queued) or self.now < self.broker._settles_at

    @invariant()
    def broker_and_model_hold_the_same(self) -> None:
        assert self.broker.ledger.backlog.depth == len(self.model.queued)
        assert self.broker.ledger.in_flight == len(self.model.held) + len(self.model.seconds)
        assert self.broker.roster.idle_count == len(self.model.idle)


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
