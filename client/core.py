"""The client's decisions: which tasks are unresolved, who is the broker, what to send. Knows no socket, thread, future.

A session is one HELLO on one fresh socket, confirmed by WELCOME, which names the broker's epoch. It is lost when the
broker does not know it (WHO), is another (a new epoch), says goodbye or is silent for the liveness; the next session
submits all that is unresolved again, in the order of submission. Of two brokers' answers the first one counts.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import floor, inf
from typing import TypeAlias, assert_never

from racepool.protocol import messages
from racepool.protocol.errors import (
    START_ONE,
    BacklogFullError,
    BrokerUnavailableError,
    PayloadTooLargeError,
    PoolError,
    ProtocolMismatchError,
    TaskTimeoutError,
)
from racepool.protocol.messages import PROTOCOL_VERSION, Answer, Epoch, FromClient, Hello, Id, ToClient
from racepool.protocol.parcel import Parcel

UNIT_BYTES = 16_384
WINDOW_UNITS = 256  # 4 MiB; a task counts at least one unit. More in the broker's hands gains nothing
REFILL_UNITS = 192  # a window that was full is filled when it has come down to this: many tasks at one wake-up

REST_S = 1e-5  # for each task; ten times what a look at it takes
ROUNDING_S = 1e-6  # more than sums of instants lose
FIGURES = "the broker's figures"  # what an error names where there is no task


@dataclass(slots=True, eq=False)
class Pending:
    """An unresolved task. Instants are the client's clock, in seconds.

    `waited_s` is the waiting that is settled, `waiting_since` the start of what is not (None while the broker is known
    to have it in flight). `sent_in` is the epoch whose broker may have it, None if it was never sent.
    """

    id: Id
    parcel: Parcel
    run_timeout_ms: int
    queue_timeout_s: float
    submitted_at: float
    waiting_since: float | None
    waited_s: float = 0.0
    check_at: float = inf
    is_sent: bool = False
    sent_in: Epoch | None = None

    @property
    def units(self) -> int:
        """Its share of the window."""
        return 1 + self.parcel.size_bytes // UNIT_BYTES

    def settled_s(self, now: float) -> float:
        """The waiting up to now."""
        return self.waited_s + (now - self.waiting_since if self.waiting_since is not None else 0.0)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A cancellation that the broker of this epoch may not have heard yet: not before it answers the ping of a number.

    `heard_by_ping` is infinity while it is not said.
    """

    epoch: Epoch
    kill: bool
    heard_by_ping: float


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Close the socket, open a fresh one and send this HELLO through it."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Send:
    """Send this through the session's socket."""

    message: FromClient


@dataclass(frozen=True, slots=True)
class SendTask:
    """Submit this task through the session's socket; its payload in shared memory if that `can_share`."""

    task: Pending
    waited_ms: int
    again: bool
    can_share: bool


@dataclass(frozen=True, slots=True)
class Deliver:
    """The task's answer."""

    task: Pending
    answer: Answer


@dataclass(frozen=True, slots=True)
class Fail:
    """The task ended without an answer; `error` takes the words for the task."""

    task: Pending
    error: Callable[[str], PoolError]


@dataclass(frozen=True, slots=True)
class DeliverStats:
    """The broker's figures, to all who asked."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class FailStats:
    """No figures, to all who asked."""

    error: PoolError


Action: TypeAlias = OpenSession | Send | SendTask | Deliver | Fail | DeliverStats | FailStats


@dataclass(frozen=True, slots=True)
class Timing:
    """The client's limits, in seconds."""

    heartbeat_interval_s: float
    liveness_s: float
    connect_timeout_s: float

    @property
    def hello_retry_s(self) -> float:
        """A HELLO may have gone to a broker that is no more. Doubled at each attempt, up to the liveness."""
        return self.liveness_s / 4


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in all sessions; `segment` is the shared memory's descriptor and inode, if there is any."""

    client_id: Id
    pid: int
    segment: tuple[int, int] = (0, 0)


class ClientCore:
    """All unresolved tasks of one client, and its session.

    Invariant: `pending` holds each task from `on_submit` to its one Deliver, Fail or cancellation, in the order of
    submission; the units of those that are sent make up `outstanding`. A cancellation is said in each session with the
    broker that may have the task, until it is known to have been heard.
    """

    def __init__(
        self, identity: Identity, endpoint: str, timing: Timing, remedy: str = START_ONE, *, least: int = 1
    ) -> None:
        """Made by the engine.

        Args:
            identity: what a HELLO tells.
            endpoint: where the broker is, for messages.
            timing: the limits.
            remedy: what to look at when nobody answers there.
            least: how many tasks are submitted at a time however large they are, so that no worker idles.
        """
        self.pending: dict[Id, Pending] = {}
        self.outstanding = 0
        self._is_full = False
        self._is_refill_due = False
        self._identity = identity
        self._endpoint = endpoint
        self._timing = timing
        self._remedy = remedy
        self._least = least
        self._held: deque[Id] = deque()
        self._withdrawals: dict[Id, Withdrawal] = {}
        self._pings = self._pongs = 0
        self._interval_s = timing.heartbeat_interval_s
        self._sent = 0
        self._sessions = 0
        self._epoch: Epoch | None = None
        self._payload_limit = 0
        self._can_share = False
        self._was_ever_welcome = False
        self._lost_at: float | None = None
        self._heard_at = 0.0
        self._ping_at = inf
        self._hello_at = inf
        self._hello_retry_s = timing.hello_retry_s
        self._check_at = inf
        self._rests_until = -inf  # to when the last look at all timeouts put the next one off
        self._stats_by = inf

    # --- the caller ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """The first session."""
        self._lost_at = now
        return self._open(now)

    def on_submit(self, task: Pending, now: float) -> list[Action]:
        """A new task, at the end of the order."""
        self.pending[task.id] = task
        self._held.append(task.id)
        self._recheck(task, self._due(task))
        return self._submit_held(now)

    def on_cancel(self, task_id: Id, *, kill: bool) -> list[Action]:
        """The caller wants no answer any more; may be repeated, to kill the worker after all."""
        task = self._take(task_id)
        if task is not None:
            epoch = task.sent_in
        else:
            epoch = self._withdrawals[task_id].epoch if task_id in self._withdrawals else self._epoch
        self._is_refill_due = True  # in this turn, after all that are cancelled with it
        if epoch is None or self._epoch not in (None, epoch):
            return []  # no broker of today has it
        if self._epoch is None:
            self._withdrawals[task_id] = Withdrawal(epoch, kill, inf)
            return []
        return [self._withdraw(task_id, epoch, kill=kill)]

    def on_ask_stats(self, now: float) -> list[Action]:
        """Somebody wants the broker's figures."""
        if self._stats_by < inf and self._epoch is not None:
            return []  # asked already
        self._stats_by = min(self._stats_by, now + self._timing.connect_timeout_s)
        return [Send(messages.AskStats())] if self._epoch is not None else []

    def farewell(self) -> list[Action]:
        """The last words of a client that has nothing unresolved, or wants nothing more."""
        return [Send(messages.Bye())] if self._epoch is not None else []

    # --- the broker ---------------------------------------------------------------------------------------------------

    def on_message(self, message: ToClient, now: float) -> list[Action]:
        """What the broker sent into this session."""
        self._heard_at = now
        match message:
            case Answer(task_id):
                task = self._take(task_id)
                return [Deliver(task, message), *self._submit_held(now)] if task else []
            case messages.Pong(epoch):
                return self._on_pong() if epoch == self._epoch else self._open(now)
            case messages.Welcome():
                return self._on_welcome(message, now)
            case messages.Reject(task_id):
                return [*self._fail(task_id, partial(_backlog_full, reject=message)), *self._submit_held(now)]
            case messages.Waited():
                self._on_waited(message, now)
                return []
            case messages.Stats(payload):
                self._stats_by = inf
                return [DeliverStats(payload)]
            case messages.Who() | messages.Bye():
                return self._open(now)
            case _:
                assert_never(message)

    def on_foreign_version(self, version: int) -> list[Action]:
        """The broker speaks another protocol: nothing that waits can ever be answered."""
        failed = [
            action
            for task_id in list(self.pending)
            for action in self._fail(task_id, partial(ProtocolMismatchError, ours=PROTOCOL_VERSION, theirs=version))
        ]
        return [*failed, *self._fail_stats(ProtocolMismatchError(FIGURES, PROTOCOL_VERSION, version))]

    def _on_welcome(self, welcome: messages.Welcome, now: float) -> list[Action]:
        self._epoch, self._payload_limit, self._can_share = welcome.epoch, welcome.payload_limit, welcome.can_share
        self._was_ever_welcome = True
        self._hello_retry_s = self._timing.hello_retry_s
        self._lost_at = None
        self._hello_at = inf
        self._interval_s = min(self._timing.heartbeat_interval_s, welcome.beat_s)
        said: list[Action] = []
        for task_id, withdrawal in list(self._withdrawals.items()):
            if withdrawal.epoch == welcome.epoch:
                said.append(self._withdraw(task_id, withdrawal.epoch, kill=withdrawal.kill))
            else:
                del self._withdrawals[task_id]
        if self._stats_by < inf:
            said.append(Send(messages.AskStats()))
        return [*said, *self._submit_held(now), self._ping(now)]

    def _on_pong(self) -> list[Action]:
        self._pongs += 1
        if self._withdrawals:
            self._withdrawals = {
                task_id: each for task_id, each in self._withdrawals.items() if each.heard_by_ping > self._pongs
            }
        return []

    def _withdraw(self, task_id: Id, epoch: Epoch, *, kill: bool) -> Send:
        self._withdrawals[task_id] = Withdrawal(epoch, kill, self._pings + 1)
        return Send(messages.Cancel(task_id, kill))

    def _ping(self, now: float) -> Send:
        """Tells how much is held, too."""
        self._pings += 1
        self._ping_at = now + self._interval_s
        return Send(messages.Ping(len(self.pending) - self._sent))

    def _on_waited(self, report: messages.Waited, now: float) -> None:
        task = self.pending.get(report.task_id)
        if task is not None:
            task.waited_s = report.waited_ms / 1000
            task.waiting_since = now if report.queued else None
            left_s = task.queue_timeout_s - task.waited_s
            self._recheck(task, now + max(left_s, self._timing.heartbeat_interval_s))

    def _open(self, now: float) -> list[Action]:
        """A fresh session; all unresolved tasks wait for it, in their order."""
        if self._epoch is not None:
            self._lost_at = now
        self._epoch = None
        self._heard_at = now
        self._ping_at = inf
        self._hello_at = now + self._hello_retry_s
        self._hello_retry_s = min(2 * self._hello_retry_s, self._timing.liveness_s)
        self._held = deque(self.pending)
        self._sent = self.outstanding = self._pings = self._pongs = 0
        self._withdrawals = {task_id: replace(each, heard_by_ping=inf) for task_id, each in self._withdrawals.items()}
        for task in self.pending.values():
            task.is_sent = False
            if task.waiting_since is None:
                task.waiting_since = now
            self._recheck(task, self._due(task))
        self._sessions += 1
        me = self._identity
        return [OpenSession(Hello(me.client_id, self._sessions, me.pid, len(self._held), *me.segment))]

    def _submit_held(self, now: float) -> list[Action]:
        """Sends what fits into the window; a few tasks always do."""
        self._is_refill_due = False
        actions: list[Action] = []
        if self._is_full and self.outstanding > REFILL_UNITS and self._sent >= self._least:
            return actions
        self._is_full = False
        while self._held and self._epoch is not None:
            task = self.pending.get(self._held[0])
            if task is None:
                self._held.popleft()
                continue
            if self._sent >= self._least and self.outstanding + task.units > WINDOW_UNITS:
                self._is_full = True
                break
            self._held.popleft()
            if task.parcel.size_bytes > self._payload_limit:
                actions += self._refuse(task)
                continue
            waited_ms, again = floor(task.settled_s(now) * 1000), task.sent_in is not None
            actions.append(SendTask(task, waited_ms, again, self._can_share))
            task.is_sent, task.sent_in = True, self._epoch
            self._sent += 1
            self.outstanding += task.units
        return actions

    def _refuse(self, task: Pending) -> list[Action]:
        limit, size = self._payload_limit, task.parcel.size_bytes
        return self._fail(task.id, lambda about: PayloadTooLargeError(about, size, limit))

    def _take(self, task_id: Id) -> Pending | None:
        """Ends a task here; an answer to it that still comes is not its first, and changes nothing."""
        task = self.pending.pop(task_id, None)
        if task is not None and task.is_sent:
            self._sent -= 1
            self.outstanding -= task.units
        return task

    def _fail(self, task_id: Id, error: Callable[[str], PoolError]) -> list[Action]:
        task = self._take(task_id)
        return [Fail(task, error)] if task else []

    def _fail_stats(self, error: PoolError) -> list[Action]:
        if self._stats_by == inf:
            return []
        self._stats_by = inf
        return [FailStats(error)]

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty but for a bug. For tests: it looks at every task."""
        broken = []
        sent = [task for task in self.pending.values() if task.is_sent]
        if (len(sent), sum(task.units for task in sent)) != (self._sent, self.outstanding):
            broken.append("the window counts other tasks than those that are sent")
        held = [task_id for task_id in self._held if task_id in self.pending]
        if held != [task.id for task in self.pending.values() if not task.is_sent]:
            broken.append("what is held is not what is not sent, in its order")
        if sent and self._epoch is None:
            broken.append("a task is sent without a session")
        if held and not sent and self._epoch is not None and not self._is_refill_due:
            broken.append("tasks are held though nothing is in the window")
        if any(max(task.check_at, self._rests_until) < self._check_at for task in self.pending.values()):
            broken.append("a timeout would be overlooked")
        return broken

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_check(self) -> float:
        """When `on_tick` has something to do, at the earliest."""
        if self._is_refill_due:
            return -inf
        silent_at = self._heard_at + self._timing.liveness_s if self._epoch is not None else inf
        return min(self._ping_at, self._hello_at, self._check_at, self._stats_by, silent_at)

    def on_pause(self, now: float) -> None:
        """The client itself stood still, so the broker's silence tells nothing."""
        self._heard_at = now

    def on_tick(self, now: float) -> list[Action]:
        """Heartbeats, the judgement of a silent broker, and timeouts. To be called when the socket is drained."""
        actions: list[Action] = []
        if now >= self._hello_at or (self._epoch is not None and now >= self._heard_at + self._timing.liveness_s):
            actions += self._open(now)
        if now >= self._ping_at:
            actions.append(self._ping(now))
        if now >= self._check_at:
            actions += self._check_timeouts(now)
        if self._is_refill_due:
            actions += self._submit_held(now)
        if now >= self._stats_by:
            actions += self._fail_stats(self._unavailable(FIGURES))
        return actions

    def _check_timeouts(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for task in list(self.pending.values()):
            if now >= task.check_at:
                actions += self._check(task, now)
        actions += self._submit_held(now)
        self._rests_until = now + len(self.pending) * REST_S  # thousands may be due a moment apart
        self._check_at = max(min((task.check_at for task in self.pending.values()), default=inf), self._rests_until)
        return actions

    def _check(self, task: Pending, now: float) -> list[Action]:
        if not self._was_ever_welcome and now >= task.submitted_at + self._timing.connect_timeout_s:
            return self._fail(task.id, self._unavailable)
        if task.waiting_since is not None and task.settled_s(now) + ROUNDING_S < task.queue_timeout_s:
            task.check_at = self._due(task)
            return []
        if task.is_sent:  # only the broker knows whether it still waits
            task.check_at = now + self._timing.heartbeat_interval_s
            return [Send(messages.Expire(task.id, floor(task.queue_timeout_s * 1000)))]
        reason = "held by the client"
        if self._lost_at is not None:
            reason = f"no broker for {now - self._lost_at:.1f} s: {self._remedy}"
        return self._fail(
            task.id,
            lambda about: TaskTimeoutError(about, state="queued", timeout_s=task.queue_timeout_s, reason=reason),
        )

    def _due(self, task: Pending) -> float:
        """When its queue timeout ends if it waits on, or its connect timeout."""
        since = task.submitted_at if task.waiting_since is None else task.waiting_since
        due = since + task.queue_timeout_s - task.waited_s
        return due if self._was_ever_welcome else min(due, task.submitted_at + self._timing.connect_timeout_s)

    def _recheck(self, task: Pending, at: float) -> None:
        task.check_at = at
        self._check_at = min(self._check_at, at)

    def _unavailable(self, about: str) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"{about}: no broker answered at {self._endpoint} within {self._timing.connect_timeout_s:g} s; "
            f"{self._remedy}"
        )


def _backlog_full(about: str, reject: messages.Reject) -> BacklogFullError:
    of = "bytes (RACEPOOL_BACKLOG_BYTES)" if reject.in_bytes else "tasks (RACEPOOL_BACKLOG_LIMIT)"
    return BacklogFullError(f"{about}: the broker's backlog is full", reject.depth, reject.limit, of=of)
