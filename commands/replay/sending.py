"""Sends a day's polls through a pool and writes the outcome of each. schedule.py decides the order."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

from racepool.client.zmq_pool import ZmqPool
from racepool.commands.replay.checkpoint import Checkpoint
from racepool.commands.replay.day import UnreadableFileError, body_of
from racepool.commands.replay.poll import PollEntry
from racepool.commands.replay.schedule import Schedule, Turn
from racepool.protocol.errors import (
    BacklogFullError,
    InvalidRaceError,
    PayloadTooLargeError,
    PoolError,
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
)
from racepool.races.money_row import PollRows
from racepool.races.previous_amounts import LARGEST_AMOUNT
from racepool.races.transformed_race import TransformedRace

OF_THE_POLL = (UnreadableFileError, InvalidRaceError, PayloadTooLargeError, TransformError, WorkerCrashedError)


def send_all(
    pool: ZmqPool, schedule: Schedule, checkpoint: Checkpoint, limit_bytes: int, advance: Callable[[], None]
) -> None:
    """Settles all polls of the schedule, and writes each outcome to the checkpoint.

    Args:
        pool: where they are transformed.
        schedule: what is left to do.
        checkpoint: gets an entry for each poll.
        limit_bytes: the maximum size of a race, uncompressed.
        advance: called after each poll.

    Raises:
        PoolError: the pool failed, not a poll, or the checkpoint cannot be written. Settled polls are in it.
    """
    answers: SimpleQueue[tuple[Turn, Future[TransformedRace] | Exception]] = SimpleQueue()
    while not schedule.is_done:
        while turn := schedule.next_turn(time.monotonic()):
            _submit(pool, turn, limit_bytes, answers)
        patience_s = schedule.retry_at - time.monotonic()
        try:
            turn, answer = answers.get(timeout=None if patience_s == inf else max(0.0, patience_s))
        except Empty:
            continue
        outcome = _outcome(answer)
        if isinstance(outcome, BacklogFullError):
            schedule.refuse(turn.poll.race_id, time.monotonic())
            continue
        entry = _entry(turn, outcome)
        checkpoint.append(entry)
        schedule.settle(entry)
        advance()


def _submit(pool: ZmqPool, turn: Turn, limit_bytes: int, answers: "SimpleQueue[Any]") -> None:
    try:
        body = body_of(turn.poll, limit_bytes)
        future = pool.exec(body, polled_at=turn.poll.polled_at, previous=turn.previous)
    except (UnreadableFileError, PoolError) as error:
        answers.put((turn, error))
    else:
        future.add_done_callback(lambda done: answers.put((turn, done)))


def _outcome(answer: Future[TransformedRace] | Exception) -> TransformedRace | Exception:
    if isinstance(answer, Exception):
        return answer
    return answer.exception() or answer.result()  # type: ignore[return-value]  # no BaseException is ever set


def _entry(turn: Turn, outcome: TransformedRace | Exception) -> PollEntry:
    """The entry for this outcome.

    Raises:
        PoolError: the outcome tells that the pool does not work, and nothing about the poll.
    """
    race_id, number = turn.poll.race_id, turn.number
    if isinstance(outcome, TransformedRace) and outcome.race_id == race_id:
        result = PollRows.of(outcome)
        amounts = ((row.win_pool_amount, row.place_pool_amount, row.total_pool_amount) for row in result.rows)
        if any(max(each) > LARGEST_AMOUNT for each in amounts):
            error = f"its money is more than the {LARGEST_AMOUNT:,} cents that a table and the next poll can take"
            return PollEntry(race_id=race_id, number=number, error=error)
        return PollEntry(race_id=race_id, number=number, result=result)
    if isinstance(outcome, TransformedRace):
        return PollEntry(race_id=race_id, number=number, error=f"came back as race {outcome.race_id}")
    if isinstance(outcome, OF_THE_POLL) or (isinstance(outcome, TaskTimeoutError) and outcome.state == "running"):
        return PollEntry(race_id=race_id, number=number, error=str(outcome))
    if isinstance(outcome, Exception):
        raise outcome
    raise PoolError(
        f"the workers' transform returns a {type(outcome).__name__} and no money flow; "
        "replay with a pool whose RACEPOOL_TRANSFORM is not set"
    )
