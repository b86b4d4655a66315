"""A worker pool that takes CPU-bound race processing off an asyncio event loop.

>>> from racepool import pool
>>> result = await pool.exec(body)  # doctest: +SKIP

The names in `__all__` are public; everything else may change at any time. A name is imported at its first use: the
small programs of this package, which run beside every pool, need none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from racepool.client.future import PoolFuture
    from racepool.client.timing import TaskTiming
    from racepool.client.zmq_pool import ZmqPool, pool
    from racepool.protocol.errors import (
        BacklogFullError,
        BrokerUnavailableError,
        CrashedAttempt,
        FieldError,
        InvalidRaceError,
        PayloadTooLargeError,
        PoolBrokenError,
        PoolClosedError,
        PoolError,
        PoolForkedError,
        ProtocolMismatchError,
        SettingsError,
        StoreError,
        TaskTimeoutError,
        TransformError,
        WorkerCrashedError,
    )
    from racepool.protocol.stats import PoolStats
    from racepool.races.bucket_flow import BucketFlow, bucket_flows
    from racepool.races.previous_amounts import PreviousAmounts
    from racepool.races.race import RaceData
    from racepool.races.transform import transform_race
    from racepool.races.transformed_race import MoneyFlowRecord, TransformedRace
    from racepool.supervision.local_pool import local_pool

__all__ = [
    "BacklogFullError",
    "BrokerUnavailableError",
    "BucketFlow",
    "CrashedAttempt",
    "FieldError",
    "InvalidRaceError",
    "MoneyFlowRecord",
    "PayloadTooLargeError",
    "PoolBrokenError",
    "PoolClosedError",
    "PoolError",
    "PoolForkedError",
    "PoolFuture",
    "PoolStats",
    "PreviousAmounts",
    "ProtocolMismatchError",
    "RaceData",
    "SettingsError",
    "StoreError",
    "TaskTimeoutError",
    "TaskTiming",
    "TransformError",
    "TransformedRace",
    "WorkerCrashedError",
    "ZmqPool",
    "bucket_flows",
    "local_pool",
    "pool",
    "transform_race",
]

_MODULES = {
    "BucketFlow": "racepool.races.bucket_flow",
    "MoneyFlowRecord": "racepool.races.transformed_race",
    "PoolFuture": "racepool.client.future",
    "PoolStats": "racepool.protocol.stats",
    "PreviousAmounts": "racepool.races.previous_amounts",
    "RaceData": "racepool.races.race",
    "TaskTiming": "racepool.client.timing",
    "TransformedRace": "racepool.races.transformed_race",
    "ZmqPool": "racepool.client.zmq_pool",
    "bucket_flows": "racepool.races.bucket_flow",
    "local_pool": "racepool.supervision.local_pool",
    "pool": "racepool.client.zmq_pool",
    "transform_race": "racepool.races.transform",
}
"""The modules that define the public names. A public name that is not here is an error."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "racepool.protocol.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
