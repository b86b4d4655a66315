"""The right results: each race of the lab is computed twice on the quiet pool, by different workers."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from racepool.client.future import PoolFuture
from racepool.client.zmq_pool import ZmqPool
from racepool.commands.chaos.lab_races import POLLED_AT, RACES, body, lab_race
from racepool.commands.chaos.plan import Plan
from racepool.commands.chaos.program_logs import ProgramLogs
from racepool.commands.chaos.records import OK, outcome_of
from racepool.commands.chaos.witness import Truth
from racepool.protocol.settings import Settings

ROUNDS: Final = 10
LOGGED_S: Final = 5.0
POLL_S: Final = 0.05
PURE_OUTCOMES: Final = (OK, "TransformError", "InvalidRaceError", "PayloadTooLargeError")


class UnfitTransformError(Exception):
    """This transform gives no result that the lab can rely on; the text says why."""


def find_truth(
    settings: Settings, plan: Plan, transform: str, logs: ProgramLogs, look: Callable[[], None]
) -> list[Truth]:
    """Finds out how each race ends.

    Args:
        settings: of a pool with no other tasks; each round has a client of its own.
        plan: of the lab.
        transform: its name, for the error text.
        logs: of that pool; they tell which worker had which task.
        look: brings `logs` up to date.

    Raises:
        UnfitTransformError: two results of a race differ, a task failed outside the transform, or every race raised.
    """
    found: dict[int, Truth] = {}
    seen_by: dict[int, set[str]] = {index: set() for index in range(RACES)}
    runs = 0
    while runs < ROUNDS and (todo := _unsure(seen_by, runs, min(plan.workers, 2))):
        with ZmqPool.of(settings) as pool:
            futures = {index: pool.exec(body(lab_race(plan.seed, index)), polled_at=POLLED_AT) for index in todo}
            truths = {index: _settled(future, transform) for index, future in futures.items()}
        for index, truth in truths.items():
            if found.setdefault(index, truth) != truth:
                raise UnfitTransformError(
                    f"{transform} is not pure: race {index} of seed {plan.seed} ended differently when run again "
                    f"({found[index].outcome} {found[index].digest[:12]}, then {truth.outcome} {truth.digest[:12]}); "
                    "a task whose worker died runs again, so each run must give the same result"
                )
        for index, workers_of_it in _workers(futures, logs, look).items():
            seen_by[index] |= workers_of_it
        runs += 1
    if all(truth.outcome != OK for truth in found.values()):
        raise UnfitTransformError(f"{transform} raises at every race of the lab: {found[0].outcome}")
    return [found[index] for index in range(RACES)]


def _unsure(seen_by: dict[int, set[str]], runs: int, wanted: int) -> Sequence[int]:
    return [index for index, names in seen_by.items() if runs < 2 or len(names) < wanted]


def _settled(future: PoolFuture[Any], transform: str) -> Truth:
    outcome, digest, message = outcome_of(future)
    if outcome not in PURE_OUTCOMES:
        raise UnfitTransformError(f"{transform} gives no answer on a quiet pool: {outcome}: {message}")
    return Truth(outcome, digest)


def _workers(futures: dict[int, PoolFuture[Any]], logs: ProgramLogs, look: Callable[[], None]) -> dict[int, set[str]]:
    """The workers of each race; empty where the log does not tell them in time."""
    known = logs.workers_of if logs.workers_of is not None else {}
    deadline = time.monotonic() + LOGGED_S
    while any(future.task_id not in known for future in futures.values()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
        look()
    return {index: known.get(future.task_id or "", set()) for index, future in futures.items()}
