"""The worker's decisions: its session with the broker and the tasks in hand. Knows no socket, clock or transform.

A session is one incarnation on one fresh socket, opened by READY and confirmed by WELCOME, which names the broker's
epoch. It ends when the broker no longer knows it (WHO) or has become another (a new epoch). A busy worker finishes
first: its result would be stale, and is dropped.

A task that comes while another runs waits in the hand. All that the broker has said is heard before it is begun: it may
have been recalled.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias, assert_never

from racepool.protocol.messages import (
    Assign,
    Bye,
    Epoch,
    FromWorker,
    Id,
    Name,
    Outcome,
    Ready,
    Recall,
    Recycle,
    Result,
    Returned,
    ToWorker,
    Welcome,
    Who,
)

MAX_TASKS = 2
"""In hand and running, of a broker that keeps to the protocol."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Close the socket, open a fresh one and send this READY through it."""

    ready: Ready


@dataclass(frozen=True, slots=True)
class Send:
    """Send this through the session's socket."""

    message: FromWorker


@dataclass(frozen=True, slots=True)
class Execute:
    """Run the transform on this task; its end comes back as `on_finished`."""

    task: Assign


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave, when all that was sent has gone out."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an operator must know: one log line."""

    event: str


Action: TypeAlias = OpenSession | Send | Execute | Exit | Report


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in all sessions of a worker process."""

    name: Name
    pid: int
    version: Name
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class Session:
    """One incarnation, the epoch that welcomed it (None until then), and how often that broker wants to hear of it.

    Replaced whole: another thread reads it.
    """

    id: Id  # on the wire it is the incarnation
    epoch: Epoch | None = None
    beat_s: float = inf


class WorkerCore:
    """One worker's session, its task, and what waits in its hand.

    Invariants: `task` is set from its Execute to its `on_finished`; a result is sent at most once, and only into the
    session that brought its task. The hand is that session's, too.
    """

    def __init__(self, identity: Identity, new_id: Callable[[], Id], *, liveness_s: float, max_tasks: int) -> None:
        self.identity = identity
        self.session = Session(new_id())
        self.task: Assign | None = None
        self._hand: deque[Assign] = deque()
        self.payload_limit = 0
        self.tasks_done = 0
        self._new_id = new_id
        self._liveness_s = liveness_s
        self._max_tasks = max_tasks
        self._welcome_by = inf
        self._is_session_lost = False
        self._sessions = 0
        self.is_leaving = False

    @property
    def is_busy(self) -> bool:
        """Whether it runs or holds a task. Another thread may ask, hence the hand first: it empties into `task`."""
        return bool(self._hand) or self.task is not None

    def start(self, now: float) -> list[Action]:
        """The first session."""
        return self._open(now)

    def on_message(self, message: ToWorker, now: float) -> list[Action]:
        """What the broker sent into this session."""
        match message:
            case Welcome(epoch, payload_limit):
                self.payload_limit = payload_limit
                self.session = Session(self.session.id, epoch, message.beat_s)
                self._welcome_by = inf
                return [Report("broker_found")]
            case Assign():
                self._take(message)
                return []
            case Recall(lease):
                return self._give_back(lease)
            case Who():
                return self.on_session_lost(self.session.id, now)
            case Recycle():
                return self.on_terminate()
            case Bye():
                return []  # the next broker's epoch will tell
            case _:
                assert_never(message)

    def begin(self) -> list[Action]:
        """The next task in hand. To be called when all that the broker has said was heard."""
        if self.task is not None or not self._hand:
            return []
        self.task = self._hand[0]  # before it leaves the hand: another thread may ask `is_busy`
        self._hand.popleft()
        return [Execute(self.task)]

    def on_session_lost(self, session_id: Id, now: float) -> list[Action]:
        """The broker does not know this incarnation, or is another than it was."""
        if session_id != self.session.id or self.is_leaving:
            return []
        self._hand.clear()
        if self.task is not None:
            self._is_session_lost = True
            return []
        return [Report("session_lost"), *self._open(now)]

    def on_finished(
        self, outcome: Outcome, payload: bytes, now: float, *, wants_recycling: bool = False
    ) -> list[Action]:
        """The transform ended, one way or the other. Who `wants_recycling` works on until the broker can spare it."""
        task, self.task = self.task, None
        if task is None:
            return []
        self.tasks_done += 1
        actions: list[Action] = []
        if not self._is_session_lost:
            recycle = wants_recycling or 0 < self._max_tasks <= self.tasks_done
            actions.append(Send(Result(task.epoch, task.lease, task.task_id, outcome, recycle, payload)))
        if self.is_leaving:
            return actions + self._leave()
        if self._is_session_lost:
            actions += [Report("session_lost"), *self._open(now)]
        return actions

    def on_terminate(self) -> list[Action]:
        """Asked to end: at once when nothing runs, else after the reply. The goodbye gives back what is in hand."""
        self._hand.clear()
        if self.task is None:
            return self._leave()
        self.is_leaving = True
        return [Report("worker_draining")]

    def on_tick(self, now: float) -> list[Action]:
        """A READY that nobody answered may have gone to a broker that is no more."""
        return self._open(now) if now >= self._welcome_by else []

    def next_check(self) -> float:
        """When `on_tick` has something to do."""
        return self._welcome_by

    def audit(self) -> list[str]:
        """The invariants that do not hold; empty but for a bug. For tests."""
        tasks = [*self._hand, *([self.task] if self.task is not None else [])]
        broken = [] if not tasks or self.session.epoch is not None else ["a task in a session that nobody welcomed"]
        if len(tasks) > MAX_TASKS or (self._hand and (self._is_session_lost or self.is_leaving)):
            broken.append("more in hand than it may have")
        return broken

    def _take(self, task: Assign) -> None:
        """Tasks of another epoch, or more of them than a broker gives, are left alone."""
        is_free = len(self._hand) + (self.task is not None) < MAX_TASKS
        if is_free and task.epoch == self.session.epoch and not self._is_session_lost and not self.is_leaving:
            self._hand.append(task)

    def _give_back(self, lease: int) -> list[Action]:
        """If it is not too late for that: of a task that was begun the result will tell."""
        for task in self._hand:
            if task.lease == lease:
                self._hand.remove(task)
                return [Send(Returned(task.epoch, lease))]
        return []

    def _open(self, now: float) -> list[Action]:
        self.session = Session(self._new_id())
        self._is_session_lost = False
        self._welcome_by = now + self._liveness_s
        self._sessions += 1
        me = self.identity
        return [
            OpenSession(Ready(self.session.id, self._sessions, me.name, me.pid, me.version, me.started_at_ms))
        ]

    def _leave(self) -> list[Action]:
        self.is_leaving = True
        return [Send(Bye()), Exit()]
