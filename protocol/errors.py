"""Every error that a caller of the pool can meet, in one tree.

PoolError
├── InvalidRaceError         the race broke its schema; names each path           (also ValueError)
├── TransformError           the transform raised; carries type, message, traceback
├── WorkerCrashedError       every attempt's worker died
├── TaskTimeoutError         ran out of time, queued or running                   (also TimeoutError)
├── BacklogFullError         the broker or this client holds all that it may
├── PayloadTooLargeError     larger than RACEPOOL_PAYLOAD_LIMIT
├── BrokerUnavailableError   no broker was reached                                (also ConnectionError)
├── ProtocolMismatchError    broker and client speak different protocol versions
├── SettingsError            a setting breaks its rule                            (also ValueError)
├── PoolClosedError          the pool was shut down                               (also RuntimeError)
├── PoolForkedError          the future belongs to the parent process
└── PoolBrokenError          the pool's I/O thread died; names the cause
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

START_ONE = "is `racepool up` running, with the same RACEPOOL_DIR?"
"""The remedy where no broker answers, on one machine."""


class PoolError(Exception):
    """Base of all errors that racepool raises or sets on a future. A copy, or a pickle, of one is whole."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unfilled, (type(self), self.args), self.__dict__ or None


def _unfilled(kind: type[PoolError], args: tuple[object, ...]) -> PoolError:
    error = kind.__new__(kind)
    error.args = args
    return error


class FieldError(NamedTuple):
    """One broken rule of a race: where and what."""

    path: str
    message: str


class InvalidRaceError(PoolError, ValueError):
    """The race broke its schema, or cannot be packed.

    Attributes:
        errors: each broken rule as (path, message); the path is dotted, as in the input (`entrants.3.runnerNumber`).
    """

    def __init__(self, errors: Iterable[tuple[str, str]], *, about: str = "the race") -> None:
        self.errors = [FieldError(str(path), str(message)) for path, message in errors]
        self.about = about
        shown = "; ".join(f"{path}: {message}" if path else message for path, message in self.errors[:5])
        more = f" (and {len(self.errors) - 5} more)" if len(self.errors) > 5 else ""
        super().__init__(f"{about} is invalid: {shown}{more}; correct it and submit it again")


class TransformError(PoolError):
    """The transform raised; it is not retried, since a pure function would raise again.

    Attributes:
        type: qualified name of the exception's class.
        message: its text.
        remote_traceback: the worker's traceback, as text.
    """

    def __init__(self, about: str, type_: str, message: str, remote_traceback: str) -> None:
        self.type = type_
        self.message = message
        self.remote_traceback = remote_traceback
        where = "; its traceback is in .remote_traceback" if remote_traceback else ""
        super().__init__(f"{about}: the transform raised {type_}: {message}{where}")


class CrashedAttempt(NamedTuple):
    """One attempt that ended with its worker's death; `signal` is known only where the broker sent it."""

    worker: str
    signal: int | None


class WorkerCrashedError(PoolError):
    """Every attempt's worker died, so the task was given up; the pool is whole.

    Attributes:
        attempts: one CrashedAttempt for each worker that died.
    """

    def __init__(self, about: str, attempts: Sequence[CrashedAttempt], *, task_id: str = "TASK") -> None:
        self.attempts = list(attempts)
        workers = ", ".join(attempt.worker for attempt in self.attempts)
        super().__init__(
            f"{about} was given up after {len(self.attempts)} attempts: its worker died each time ({workers}); "
            f"`racepool dead show {task_id}` (with the broker's RACEPOOL_DIR) tells how, and gives the payload; "
            "look for worker_lost in the broker's log, and for memory or a native crash in what the payload sets off"
        )


class TaskTimeoutError(PoolError, TimeoutError):
    """The task ran out of time.

    Attributes:
        state: "queued" (waited for a worker or a broker for too long) or "running" (its worker was killed).
        timeout_s: the limit that ran out, in seconds.
    """

    def __init__(self, about: str, *, state: str, timeout_s: float, reason: str = "") -> None:
        self.state = state
        self.timeout_s = timeout_s
        remedy = (
            "its worker process was killed; raise run_timeout_s if the work may take longer"
            if state == "running"
            else "add workers, or raise queue_timeout_s"
        )
        detail = f" ({reason})" if reason else ""
        super().__init__(f"{about} ran out of its {timeout_s:g} s while {state}{detail}; {remedy}")


class BacklogFullError(PoolError):
    """The broker's backlog, or this client's allowance, is full; submit again when tasks have finished.

    Attributes:
        depth: how many tasks (or bytes, as the message says) are held.
        limit: how many may be held.
    """

    def __init__(self, about: str, depth: int, limit: int, *, of: str = "tasks") -> None:
        self.depth = depth
        self.limit = limit
        super().__init__(f"{about}: {depth} of {limit} {of}; submit again later, or raise the limit")


class PayloadTooLargeError(PoolError):
    """The packed race, or its result, is larger than RACEPOOL_PAYLOAD_LIMIT (`size_bytes`, `limit_bytes`)."""

    def __init__(self, about: str, size_bytes: int, limit_bytes: int | None = None) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        limit = "more than the worker may send" if limit_bytes is None else f"the limit is {limit_bytes}"
        super().__init__(
            f"{about} has {size_bytes} bytes, {limit}; "
            "raise RACEPOOL_PAYLOAD_LIMIT for broker, workers and clients alike"
        )


class BrokerUnavailableError(PoolError, ConnectionError):
    """No broker answered at the endpoint within the connect timeout."""


class ProtocolMismatchError(PoolError):
    """Broker and client speak different versions of the wire protocol; install the same racepool for both."""

    def __init__(self, about: str, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(
            f"{about}: this client speaks protocol version {ours}, the broker {theirs}; "
            "install the same racepool for both"
        )


class SettingsError(PoolError, ValueError):
    """A setting breaks its rule; the message names the variable and the rule."""


class PoolClosedError(PoolError, RuntimeError):
    """The pool was shut down; make a new one."""


class PoolForkedError(PoolError):
    """The future was made before a fork and belongs to the parent process; call exec() again in the child."""


class PoolBrokenError(PoolError):
    """The pool's I/O thread died of what `__cause__` names; all its futures failed with this error. Make a new pool.

    Or it cannot start, for want of threads or file descriptors; then the same pool may be tried again.
    """
