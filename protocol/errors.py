"""Every error that a caller of the pool can get, in one tree.

PoolError
├── InvalidRaceError         the race broke its schema; names each path           (also ValueError)
├── TransformError           the transform raised; carries type, message, traceback
├── WorkerCrashedError       the worker of each attempt died
├── TaskTimeoutError         the task ran out of time, queued or running          (also TimeoutError)
├── BacklogFullError         the broker or this client holds as many tasks as it may
├── PayloadTooLargeError     larger than RACEPOOL_PAYLOAD_LIMIT
├── BrokerUnavailableError   no broker was reached                                (also ConnectionError)
├── ProtocolMismatchError    broker and client speak different protocol versions
├── SettingsError            a setting breaks its rule                            (also ValueError)
├── PoolClosedError          the pool was shut down                               (also RuntimeError)
├── PoolForkedError          the future belongs to the parent process
├── PoolBrokenError          the pool's I/O thread died or cannot start; names the cause
└── StoreError               a store could not read or write; names the cause
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from racepool.protocol.visible import visible, visible_lines

START_ONE = "is `racepool up` running, with the same RACEPOOL_DIR?"
"""The remedy if no broker answers on this machine."""


class PoolError(Exception):
    r"""Base of all errors that racepool raises or sets on a future.

    Each can be copied and pickled, with its message and all attributes. The message shows text of races, peers, files
    and databases escaped (`\x1b`), so that it can be printed and logged; the attributes have it as it came.
    """

    def __str__(self) -> str:
        return visible_lines(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        return _unfilled, (type(self), self.args), self.__dict__ or None


def _unfilled(kind: type[PoolError], args: tuple[object, ...]) -> PoolError:
    error = kind.__new__(kind)
    error.args = args
    return error


class FieldError(NamedTuple):
    """One broken rule of a race."""

    path: str  # where in the input, dotted: `entrants.3.runnerNumber`; empty for the race as a whole
    message: str  # which rule


class InvalidRaceError(PoolError, ValueError):
    """The race, `polled_at` or `previous` breaks a rule, or the race cannot be packed.

    `RaceData.parse` and `transform_race` raise it, and the future of a task that has such a race. To submit the same
    race again gives the same error.

    Attributes:
        errors: each broken rule as (path, message). The path is dotted, as in the input (`entrants.3.runnerNumber`). It
            is empty for a rule of the race as a whole.
        about: what is invalid, for the message: "the race", or the task and the race.
    """

    def __init__(self, errors: Iterable[tuple[str, str]], *, about: str = "the race") -> None:
        self.errors = [FieldError(str(path), str(message)) for path, message in errors]
        self.about = about
        shown = "; ".join(visible(f"{path}: {message}" if path else message) for path, message in self.errors[:5])
        more = f" (and {len(self.errors) - 5} more)" if len(self.errors) > 5 else ""
        super().__init__(f"{about} is invalid: {shown}{more}; correct it and submit it again")


class TransformError(PoolError):
    """The transform raised an exception. The task is not retried, since a pure function would raise again.

    Attributes:
        type: the qualified name of the exception's class. `UnreadableError` if no program could read the payload in the
            client's shared memory.
        message: the text of the exception.
        remote_traceback: the traceback in the worker, as text; may be empty.
    """

    def __init__(self, about: str, type_: str, message: str, remote_traceback: str) -> None:
        self.type = type_
        self.message = message
        self.remote_traceback = remote_traceback
        where = "; its traceback is in .remote_traceback" if remote_traceback else ""
        super().__init__(f"{about}: the transform raised {visible(f'{type_}: {message}')}{where}")


class CrashedAttempt(NamedTuple):
    """One attempt that ended with the death of its worker."""

    worker: str  # its name
    signal: int | None  # that ended it; None if not known: today's broker always sends None


class WorkerCrashedError(PoolError):
    """The worker of each attempt died, so the broker gave the task up. The pool goes on.

    The number of attempts is the broker's setting RACEPOOL_MAX_ATTEMPTS. The task is now a dead task: its payload is
    kept on the broker's host, and `racepool dead` shows it.

    Attributes:
        attempts: one CrashedAttempt for each worker that died, the first one first.
    """

    def __init__(self, about: str, attempts: Sequence[CrashedAttempt], *, task_id: str = "TASK") -> None:
        self.attempts = list(attempts)
        workers = visible(", ".join(attempt.worker for attempt in self.attempts))
        super().__init__(
            f"{about} was given up after {len(self.attempts)} attempts: its worker died each time ({workers}); "
            f"`racepool dead show {task_id}` (with the broker's RACEPOOL_DIR) tells how, and gives the payload; "
            "look for worker_lost in the broker's log, and for memory or a native crash in what the payload sets off"
        )


class TaskTimeoutError(PoolError, TimeoutError):
    """The task ran out of time.

    Attributes:
        state: "queued": it waited too long for a worker or a broker. "running": one attempt ran too long, and its
            worker was killed.
        timeout_s: the limit, in seconds: the task's queue timeout or run timeout.
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
    """The broker's backlog is full, or this client holds as many tasks as it may; submit again later.

    The limits are the settings RACEPOOL_BACKLOG_LIMIT, RACEPOOL_BACKLOG_BYTES and RACEPOOL_MAX_IN_FLIGHT.

    Attributes:
        depth: how many tasks are held; bytes if the message says so.
        limit: how many may be held, in the same unit.
    """

    def __init__(self, about: str, depth: int, limit: int, *, of: str = "tasks") -> None:
        self.depth = depth
        self.limit = limit
        super().__init__(f"{about}: {depth} of {limit} {of}; submit again later, or raise the limit")


class PayloadTooLargeError(PoolError):
    """The packed race, or its result, is larger than the setting RACEPOOL_PAYLOAD_LIMIT.

    Attributes:
        size_bytes: how large it is, in bytes.
        limit_bytes: the limit, in bytes; None for a result: the worker does not tell its limit.
    """

    def __init__(self, about: str, size_bytes: int, limit_bytes: int | None = None) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        limit = "more than the worker may send" if limit_bytes is None else f"the limit is {limit_bytes}"
        super().__init__(
            f"{about} has {size_bytes} bytes, {limit}; "
            "raise RACEPOOL_PAYLOAD_LIMIT for broker, workers and clients alike"
        )


class BrokerUnavailableError(PoolError, ConnectionError):
    """No broker answered at the endpoint within the setting RACEPOOL_CONNECT_TIMEOUT."""


class ProtocolMismatchError(PoolError):
    """Broker and client speak different versions of the wire protocol; install the same racepool for both.

    Attributes:
        ours: the version of this client.
        theirs: the version of the broker.
    """

    def __init__(self, about: str, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        super().__init__(
            f"{about}: this client speaks protocol version {ours}, the broker {theirs}; "
            "install the same racepool for both"
        )


class SettingsError(PoolError, ValueError):
    """A setting, or a file or directory that it names, breaks its rule; the message names the variable and the rule."""


class PoolClosedError(PoolError, RuntimeError):
    """The pool was shut down; make a new one."""


class PoolForkedError(PoolError):
    """The future was made before a fork and belongs to the parent process; call exec() again in the child."""


class PoolBrokenError(PoolError):
    """The I/O thread of the pool died, or cannot start; `__cause__` is the reason.

    If it died, all futures of the pool have failed with this error: make a new pool. If it cannot start, threads or
    file descriptors are missing: the same pool can be used again when there are some.
    """


class StoreError(PoolError):
    """A store could not read or write; the message quotes the database, and tells what to do.

    The methods of a store raise it, never the future of a task. `__cause__` is the error of the database's driver, if
    there is one.
    """
