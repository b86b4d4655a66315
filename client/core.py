"""The client's decisions: which tasks are unresolved, which broker has them, what to send. Knows no socket or thread.

A session begins with one HELLO on one fresh socket. WELCOME confirms it and names the broker's epoch. The session is
lost when the broker does not know it (WHO), says goodbye, answers with another epoch, or is silent for the liveness.
The next session submits all unresolved tasks again, in the order of submission. If two brokers answer one task, the
first answer counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import floor, inf
from typing import assert_never

from racepool.client.actions import (
    Action,
    Deliver,
    DeliverStats,
    Fail,
    FailStats,
    Log,
    OpenSession,
    Send,
    SendTask,
)
from racepool.client.task import ClientTask
from racepool.client.window import Window
from racepool.client.withdrawals import Withdrawals
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
from racepool.protocol.messages import PROTOCOL_VERSION, Answer, Epoch, Hello, Id, ToClient

OUTAGE_S = 1.5  # a task that waits without a broker for so long is worth a warning
REST_S = 1e-5  # for each task, the pause between two scans of all timeouts: they use at most 10 % of a CPU
ROUNDING_S = 1e-6  # more than the rounding error of a sum of instants
STATS = "the broker's stats"  # what an error calls a question for stats, in the place of a task's name


@dataclass(frozen=True, slots=True)
class Limits:
    """The client's limits, in seconds."""

    heartbeat_interval_s: float
    liveness_s: float
    connect_timeout_s: float

    @property
    def hello_retry_s(self) -> float:
        """When the first HELLO is repeated: its broker may have ended. Doubled each time, up to the liveness."""
        return self.liveness_s / 4


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in all sessions."""

    client_id: Id
    pid: int
    segment: tuple[int, int] = (0, 0)  # descriptor and inode of the shared memory; zeros if there is none


class ClientCore:
    """All unresolved tasks of one client, and its session.

    Invariant: a task is unresolved from its `on_submit` to its one Deliver, Fail or withdrawal. Each session tells the
    broker that may have a withdrawn task, until it is certain that this broker has heard it.
    """

    def __init__(
        self, identity: Identity, endpoint: str, limits: Limits, remedy: str = START_ONE, *, least: int = 1
    ) -> None:
        """Made by the engine.

        Args:
            identity: what a HELLO tells.
            endpoint: where the broker is; for error messages.
            limits: the limits.
            remedy: what a user can do when nobody answers there; for error messages.
            least: how many tasks are submitted however large they are, so that no worker is idle.
        """
        self.window = Window(least=least)
        self._is_refill_due = False
        self._identity = identity
        self._endpoint = endpoint
        self._limits = limits
        self._remedy = remedy
        self._withdrawals = Withdrawals()
        self._interval_s = limits.heartbeat_interval_s
        self._sessions = 0
        self._epoch: Epoch | None = None  # None: no broker has welcomed this session yet
        self._payload_limit = 0
        self._can_share = False
        self._was_ever_welcome = False
        self._lost_at: float | None = None  # when the last session was lost; None in a session
        self._heard_at = 0.0
        self._ping_at = inf
        self._hello_at = inf
        self._hello_retry_s = limits.hello_retry_s
        self._check_at = inf  # the next scan of all timeouts
        self._rests_until = -inf  # no scan of all timeouts before this
        self._trouble = ""  # why no worker is ready, by the broker's last words
        self._told_trouble = ""
        self._stats_by = inf  # when a question for stats fails; infinity: nobody asks
        self._warn_at = inf  # when to warn that no broker answers
        self._has_warned = False  # of the present outage

    # --- the caller ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """Opens the first session."""
        self._lost_at = now
        return self._open(now)

    def on_submit(self, task: ClientTask, now: float) -> list[Action]:
        """A new task, the last in the order."""
        self.window.add(task)
        self._check_when_due(task)
        self._warn_later(now)
        return self._submit_held(now)

    def on_withdraw(self, task_id: Id, *, kill: bool) -> list[Action]:
        """The caller takes the task back. May come a second time, with `kill`, to kill the worker after all."""
        task = self.window.take(task_id)
        epoch = task.sent_in if task is not None else self._withdrawals.epoch_of(task_id) or self._epoch
        self._is_refill_due = True  # not now: the caller may take back many in a row
        if epoch is None or self._epoch not in (None, epoch):
            return []  # no living broker has it
        if self._epoch is None:
            self._withdrawals.keep(task_id, epoch, kill=kill)
            return []
        return [self._withdraw(task_id, epoch, kill=kill)]

    def on_ask_stats(self, now: float) -> list[Action]:
        """A caller asks for the broker's stats."""
        if self._stats_by < inf and self._epoch is not None:
            return []  # asked already
        self._stats_by = min(self._stats_by, now + self._limits.connect_timeout_s)
        return [Send(messages.AskStats())] if self._epoch is not None else []

    def farewell(self) -> list[Action]:
        """Says goodbye to the broker, which drops what it still has of this client."""
        return [Send(messages.Bye())] if self._epoch is not None else []

    # --- the broker ---------------------------------------------------------------------------------------------------

    def on_message(self, message: ToClient, now: float) -> list[Action]:
        """The broker sent this in the present session."""
        self._heard_at = now
        match message:
            case Answer(task_id):
                task = self.window.take(task_id)
                return [Deliver(task, message, self._trouble), *self._submit_held(now)] if task else []
            case messages.Pong(epoch):
                self._trouble = ""
                return self._on_pong() if epoch == self._epoch else self._open(now)
            case messages.Trouble(reason):
                return self._on_trouble(reason)
            case messages.Refused(task_id, reason):
                return [*self._fail(task_id, partial(_refused, reason=reason)), *self._submit_held(now)]
            case messages.Welcome():
                return self._on_welcome(message, now)
            case messages.Reject(task_id):
                refused = self._fail(task_id, partial(_backlog_full, reject=message), waited_until=now)
                return [*refused, *self._submit_held(now)]
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
        """The broker speaks another protocol version: it can answer nothing, so everything fails."""
        failed = [
            action
            for task_id in list(self.window.tasks)
            for action in self._fail(task_id, partial(ProtocolMismatchError, ours=PROTOCOL_VERSION, theirs=version))
        ]
        return [*failed, *self._fail_stats(ProtocolMismatchError(STATS, PROTOCOL_VERSION, version))]

    def _on_welcome(self, welcome: messages.Welcome, now: float) -> list[Action]:
        self._epoch, self._payload_limit, self._can_share = welcome.epoch, welcome.payload_limit, welcome.can_share
        self._was_ever_welcome = True
        is_back, self._has_warned, self._warn_at = self._has_warned, False, inf
        self._hello_retry_s = self._limits.hello_retry_s
        self._lost_at = None
        self._hello_at = inf
        self._interval_s = min(self._limits.heartbeat_interval_s, welcome.beat_s)
        said: list[Action] = [Log(f"the broker at {self._endpoint} is back", is_warning=False)] if is_back else []
        said += [
            self._withdraw(task_id, each.epoch, kill=each.kill)
            for task_id, each in self._withdrawals.on_welcome(welcome.epoch).items()
        ]
        if self._stats_by < inf:
            said.append(Send(messages.AskStats()))
        return [*said, *self._submit_held(now), self._ping(now)]

    def _on_pong(self) -> list[Action]:
        self._withdrawals.on_pong()
        return []

    def _on_trouble(self, reason: str) -> list[Action]:
        """No worker can start. The tasks wait until their timeouts: somebody may mend the set-up."""
        is_new, self._trouble = reason != self._told_trouble and bool(self.window.tasks), reason
        self._told_trouble = reason if is_new else self._told_trouble
        return [Log(f"tasks wait, and no worker is ready: {reason}", is_warning=True)] if is_new else []

    def _withdraw(self, task_id: Id, epoch: Epoch, *, kill: bool) -> Send:
        self._withdrawals.on_said(task_id, epoch, kill=kill)
        return Send(messages.Cancel(task_id, kill))

    def _ping(self, now: float) -> Send:
        """The ping also tells how many tasks are held."""
        self._withdrawals.on_ping()
        self._ping_at = now + self._interval_s
        return Send(messages.Ping(len(self.window.tasks) - self.window.sent))

    def _on_waited(self, report: messages.Waited, now: float) -> None:
        """The broker's answer to EXPIRE: the task has waiting time left."""
        task = self.window.tasks.get(report.task_id)
        if task is not None:
            task.waited_s = report.waited_ms / 1000
            task.waiting_since = now if report.queued else None
            left_s = task.queue_timeout_s - task.waited_s
            task.check_at = now + max(left_s, self._limits.heartbeat_interval_s)
            self._check_at = min(self._check_at, task.check_at)

    def _open(self, now: float) -> list[Action]:
        """Opens a fresh session. All unresolved tasks are held until it is welcome."""
        if self._epoch is not None:
            self._lost_at = now
        self._epoch = None
        self._heard_at = now
        self._ping_at = inf
        self._hello_at = now + self._hello_retry_s
        self._hello_retry_s = min(2 * self._hello_retry_s, self._limits.liveness_s)
        self.window.hold_all()
        self._withdrawals.on_session_lost()
        for task in self.window.tasks.values():
            if task.waiting_since is None:
                task.waiting_since = now
            self._check_when_due(task)
        if self.window.tasks:
            self._warn_later(now)
        self._sessions += 1
        me = self._identity
        return [OpenSession(Hello(me.client_id, self._sessions, me.pid, len(self.window.tasks), *me.segment))]

    def _warn_later(self, now: float) -> None:
        """A task waits: if no broker answers soon, its caller is told, once for each outage."""
        if self._epoch is None and not self._has_warned:
            self._warn_at = min(self._warn_at, now + OUTAGE_S)

    def _warn(self) -> list[Action]:
        self._warn_at = inf
        if not self.window.tasks:
            return []
        self._has_warned = True
        return [Log(f"no broker answers at {self._endpoint}, and tasks wait for it; {self._remedy}", is_warning=True)]

    def _submit_held(self, now: float) -> list[Action]:
        """Submits held tasks, as far as they fit into the window."""
        self._is_refill_due = False
        if self._epoch is None or not self.window.held:
            return []
        actions: list[Action] = []
        for task in self.window.fill(self._payload_limit):
            if task.is_sent:
                waited_ms, again = floor(task.total_waited_s(now) * 1000), task.sent_in is not None
                actions.append(SendTask(task, waited_ms, again, self._can_share))
                task.sent_in = self._epoch
            else:
                actions += self._refuse(task)
        return actions

    def _refuse(self, task: ClientTask) -> list[Action]:
        limit, size = self._payload_limit, task.parcel.size_bytes
        return self._fail(task.id, lambda about: PayloadTooLargeError(about, size, limit))

    def _fail(
        self, task_id: Id, error: Callable[[str], PoolError], *, waited_until: float | None = None
    ) -> list[Action]:
        """Ends a task without an answer. Its caller is told how long it waited if `waited_until` says until when."""
        task = self.window.take(task_id)
        if task is None:
            return []
        return [Fail(task, error, None if waited_until is None else task.timing_unanswered(waited_until))]

    def _fail_stats(self, error: PoolError) -> list[Action]:
        if self._stats_by == inf:
            return []
        self._stats_by = inf
        return [FailStats(error)]

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty unless there is a bug. For tests: it looks at every task."""
        broken = self.window.audit()
        tasks, sent = self.window.tasks, self.window.sent
        if sent and self._epoch is None:
            broken.append("a task is sent without a session")
        if len(tasks) > sent == 0 and self._epoch is not None and not self._is_refill_due:
            broken.append("tasks are held though nothing is in the window")
        if any(max(task.check_at, self._rests_until) < self._check_at for task in tasks.values()):
            broken.append("a timeout would be overlooked")
        return broken

    # --- time ---------------------------------------------------------------------------------------------------------

    def next_check(self) -> float:
        """The earliest instant at which `on_tick` may have something to do."""
        if self._is_refill_due:
            return -inf
        silent_at = self._heard_at + self._limits.liveness_s if self._epoch is not None else inf
        return min(self._ping_at, self._hello_at, self._check_at, self._stats_by, self._warn_at, silent_at)

    def on_pause(self, now: float) -> None:
        """This process stood still itself, so it cannot know whether the broker was silent."""
        self._heard_at = now

    def on_tick(self, now: float) -> list[Action]:
        """Leaves a silent broker, pings, and ends what is out of time. To be called when all messages were received."""
        actions: list[Action] = []
        if now >= self._hello_at or (self._epoch is not None and now >= self._heard_at + self._limits.liveness_s):
            actions += self._open(now)
        if now >= self._ping_at:
            actions.append(self._ping(now))
        if now >= self._check_at:
            actions += self._check_timeouts(now)
        if self._is_refill_due:
            actions += self._submit_held(now)
        if now >= self._warn_at:
            actions += self._warn()
        if now >= self._stats_by:
            actions += self._fail_stats(self._unavailable(STATS))
        return actions

    def _check_timeouts(self, now: float) -> list[Action]:
        tasks = self.window.tasks
        actions: list[Action] = []
        for task in list(tasks.values()):
            if now >= task.check_at:
                actions += self._check(task, now)
        actions += self._submit_held(now)
        self._rests_until = now + len(tasks) * REST_S  # thousands of tasks may be due at thousands of instants
        self._check_at = max(min((task.check_at for task in tasks.values()), default=inf), self._rests_until)
        return actions

    def _check(self, task: ClientTask, now: float) -> list[Action]:
        if not self._was_ever_welcome and now >= task.submitted_at + self._limits.connect_timeout_s:
            return self._fail(task.id, self._unavailable)
        if task.waiting_since is not None and task.total_waited_s(now) + ROUNDING_S < task.queue_timeout_s:
            self._check_when_due(task)
            return []
        if task.is_sent:  # only the broker knows whether it still waits
            task.check_at = now + self._limits.heartbeat_interval_s
            return [Send(messages.Expire(task.id, floor(task.queue_timeout_s * 1000)))]
        reason = "held by the client"
        if self._lost_at is not None:
            reason = f"no broker for {now - self._lost_at:.1f} s: {self._remedy}"
        return self._fail(
            task.id,
            lambda about: TaskTimeoutError(about, state="queued", timeout_s=task.queue_timeout_s, reason=reason),
            waited_until=now,
        )

    def _check_when_due(self, task: ClientTask) -> None:
        """Sets the next check: the end of the queue timeout, or of the connect timeout if that is earlier."""
        since = task.submitted_at if task.waiting_since is None else task.waiting_since
        due = since + task.queue_timeout_s - task.waited_s
        if not self._was_ever_welcome:
            due = min(due, task.submitted_at + self._limits.connect_timeout_s)
        task.check_at = due
        self._check_at = min(self._check_at, due)

    def _unavailable(self, about: str) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"{about}: no broker answered at {self._endpoint} within {self._limits.connect_timeout_s:g} s; "
            f"{self._remedy}"
        )


def _refused(about: str, *, reason: str) -> PoolError:
    return PoolError(f"{about}: the broker refused it: {reason}; install the same racepool on both sides")


def _backlog_full(about: str, reject: messages.Reject) -> BacklogFullError:
    of = "bytes (RACEPOOL_BACKLOG_BYTES)" if reject.in_bytes else "tasks (RACEPOOL_BACKLOG_LIMIT)"
    return BacklogFullError(f"{about}: the broker's backlog is full", reject.depth, reject.limit, of=of)
