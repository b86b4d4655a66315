"""The ways in which a worker's session ends, and what each of them means. Ends no session itself."""

from enum import Enum, Flag, auto


class Consequence(Flag):
    """What the end of a session means for its worker's process and for the task in its hands."""

    NONE = 0
    LOSS = auto()
    """It is counted and logged as a loss; any other end is a `worker_stopped`."""
    COSTS_ATTEMPT = auto()
    """The task may have caused it, so the attempt counts as a death."""
    NEVER_RECEIVED = auto()
    """The task has not reached the worker, so the assignment does not count."""
    MAY_BE_FROZEN = auto()
    """A local process may live on in silence, so it is watched until it speaks, ends or is overdue."""
    KILL = auto()
    """A local process is killed."""
    LEFT = auto()
    """The worker ended it knowingly, so heartbeats that arrive late are ignored."""


LOSS, COSTS_ATTEMPT, NEVER_RECEIVED = Consequence.LOSS, Consequence.COSTS_ATTEMPT, Consequence.NEVER_RECEIVED
MAY_BE_FROZEN, KILL, LEFT = Consequence.MAY_BE_FROZEN, Consequence.KILL, Consequence.LEFT


class SessionEnd(Enum):
    """Why a session ended: the reason that is logged, and what it means.

    GONE: the process had ended before it could be watched.
    UNREACHABLE: a message could not be sent, so the worker has not received the task in hand either.
    CUT_OFF: a message that followed the task in hand could not be sent; the worker had received that task.
    OUT_OF_STEP: the worker says that it is idle while the broker believes it busy: a lost connection took a message.
    RENEWED: the same process has opened a new session.
    """

    PROCESS_EXIT = ("process_exit", LOSS | COSTS_ATTEMPT)
    SILENCE = ("silence", LOSS | COSTS_ATTEMPT | MAY_BE_FROZEN)
    REPLACED = ("replaced", LOSS | COSTS_ATTEMPT)
    RUN_TIMEOUT = ("run_timeout", LOSS | COSTS_ATTEMPT | KILL)
    CANCELLED = ("cancelled", LOSS | COSTS_ATTEMPT | KILL)
    GONE = ("process_exit", LOSS | NEVER_RECEIVED)
    OUT_OF_STEP = ("out_of_step", LOSS | COSTS_ATTEMPT)
    UNREACHABLE = ("unreachable", LOSS | NEVER_RECEIVED | MAY_BE_FROZEN)
    CUT_OFF = ("unreachable", LOSS | COSTS_ATTEMPT | MAY_BE_FROZEN)
    REVOKED = ("revoked", LOSS)
    RENEWED = ("renewed", Consequence.NONE)
    RECYCLED = ("recycled", LEFT | MAY_BE_FROZEN)
    GOODBYE = ("goodbye", LEFT)

    def __init__(self, reason: str, means: Consequence) -> None:
        self.reason = reason
        self.is_loss = LOSS in means
        self.costs_attempt = COSTS_ATTEMPT in means
        self.was_task_received = NEVER_RECEIVED not in means
        self.may_be_frozen = MAY_BE_FROZEN in means
        self.kills = KILL in means
        self.has_left = LEFT in means
