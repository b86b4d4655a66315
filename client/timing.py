"""What a task cost, as its future tells it."""

from typing import NamedTuple


class TaskTiming(NamedTuple):
    """What a task cost: how long it waited, how long it ran, in how many attempts, and where.

    Attributes:
        queued_ms: how long the task waited, in milliseconds, over all attempts and brokers: in this process, in the
            broker's backlog, and in the hand of a worker that still ran another task. This process measures the time
            until it submits the task, in whole milliseconds; the broker measures the time after that. If no broker
            answered, this process measured all of it.
        run_ms: how long the last attempt ran, in milliseconds, until its result came or its worker was lost. The broker
            measures it, so it includes the way to the worker and back. `duration_ms` in the broker's log is the same
            time. 0.0 if no attempt is known.
        attempts: how often the last broker gave the task to a worker. More than 1 means that a worker was lost. 0 if no
            attempt is known.
        worker: the name of the worker that had the last attempt; None if no attempt is known.

    Example:
        >>> TaskTiming(queued_ms=0.2, run_ms=3.1, attempts=1, worker="worker-2").run_ms
        3.1
    """

    queued_ms: float
    run_ms: float
    attempts: int
    worker: str | None
