"""The public names of the client library, which `client` hands out: what is not here may change at any time."""

from client.local import local_pool
from client.pool_future import PoolFuture
from client.zmq_pool import ZmqPool, pool
from protocol.errors import (
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
    TaskTimeoutError,
    TransformError,
    WorkerCrashedError,
)
from protocol.race import RaceData
from protocol.stats import PoolStats
from protocol.transformed_race import MoneyFlowRecord, TransformedRace

__all__ = [
    "BacklogFullError",
    "BrokerUnavailableError",
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
    "ProtocolMismatchError",
    "RaceData",
    "SettingsError",
    "TaskTimeoutError",
    "TransformError",
    "TransformedRace",
    "WorkerCrashedError",
    "ZmqPool",
    "local_pool",
    "pool",
]
