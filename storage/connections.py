"""The connections of a store: opened when they are needed, kept for the next call, replaced when they are lost.

psycopg_pool would do this too. But it only logs why a connection fails: a wrong password would end in a timeout without
a cause.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping

from racepool.protocol import clock
from racepool.protocol.errors import StoreError
from racepool.storage.schema import Connection

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
_DEFAULTS: Final[dict[str, Any]] = {  # a host that vanishes is noticed within half a minute, and not after hours
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
    "fallback_application_name": "racepool",
}
_PASSING: Final = {
    "57P01",  # the server is stopped, or this connection is ended
    "57P02",  # another process of the server crashed
    "57P03",  # the server starts or stops
    "57P05",  # the connection was idle for too long
    "40001",  # the server could not serialize this transaction with another one
    "40P01",  # a deadlock
    "23514",  # no partition for the row: somebody dropped the day after it was made
}
_LOST: Final = "08"  # the class of errors of the connection itself
_REMEDIES: Final = {
    "3F000": "call create() first",
    "42P01": "call create() first",
    "42501": "give the role of the dsn this right",
}


class Connections:
    """Runs work on one of at most `most` connections.

    A connection on which anything failed or was cancelled is closed, and never used again.
    """

    def __init__(self, dsn: str, most: int, retry_s: float) -> None:
        given = _parsed(dsn)
        self._conninfo = make_conninfo(**{**_DEFAULTS, **given})
        self._place = f"{given.get('dbname', 'of the default name')!r} at {given.get('host', 'the default host')}"
        self._retry_s = retry_s
        self._places = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._is_closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of `work`, which is called again if the server goes away in the middle of it.

        Raises:
            StoreError: the server stays away for `retry_s`, refuses the connection, or answers with another error.
        """
        deadline = None
        pause = FIRST_PAUSE_S
        while True:
            if self._is_closed:
                raise StoreError("this store was closed; make a new one")
            try:
                async with self._places:
                    return await self._tried(work)
            except psycopg.Error as error:
                if not _is_passing(error):
                    raise StoreError(
                        f"the database {self._place} answers: {_words(error)}; {_remedy(error)}"
                    ) from error
                deadline = deadline or clock.now() + self._retry_s
                if clock.now() + pause > deadline:
                    raise StoreError(
                        f"the database {self._place} could not be used for {self._retry_s:g} s: {_words(error)}; "
                        "is the server running, and is the dsn right?"
                    ) from error
            await self._close_idle()  # the same restart of the server ended them
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Closes the idle connections now, and the others when their work ends."""
        self._is_closed = True
        await self._close_idle()

    async def _tried(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = self._idle.pop() if self._idle else await self._connected()
        try:
            result = await work(connection)
        except BaseException:
            await connection.close()
            raise
        if self._is_closed:
            await connection.close()
        else:
            self._idle.append(connection)
        return result

    async def _connected(self) -> Connection:
        try:
            return await self._connect()
        except psycopg.errors.ConnectionTimeout:
            raise
        except psycopg.OperationalError as error:
            # The error has no SQLSTATE, and its text may be in any language. A ping tells whether the server accepts
            # connections, or starts, stops or is away.
            match await asyncio.to_thread(PGconn.ping, self._conninfo.encode()):
                case Ping.OK:
                    pass
                case Ping.NO_ATTEMPT:
                    raise self._refusal(error) from error
                case _:
                    raise
        try:
            return await self._connect()  # the server may have been starting before the ping
        except psycopg.OperationalError as error:
            raise self._refusal(error) from error

    async def _connect(self) -> Connection:
        # without prepared statements, each query is planned for its values, so that it visits only the partitions of
        # its days
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        # not the default of the database: each statement must see what was committed while it waited
        await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        return connection

    def _refusal(self, error: psycopg.Error) -> StoreError:
        return StoreError(
            f"the database {self._place} refuses the connection: {_words(error)}; correct the dsn, or what the server "
            "allows"
        )

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()


def _parsed(dsn: str) -> dict[str, Any]:
    """The parts of the dsn.

    Raises:
        StoreError: the dsn has a wrong form. The text shows no part of it, because any part may be the password.
    """
    rule = (
        "the dsn must be as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where @ : / ? # % in the password are "
        "written as %40 %3A %2F %3F %23 %25; or as host=HOST dbname=DATABASE"
    )
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise StoreError(rule) from None
    if "@" in str(parts.get("host", "")) or not str(parts.get("port", "0")).replace(",", "0").isdigit():
        raise StoreError(rule)  # this is the end of a password with a character that is not written as %..
    return parts


def _is_passing(error: psycopg.Error) -> bool:
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state in _PASSING or state.startswith(_LOST)


def _words(error: psycopg.Error) -> str:
    return " ".join(str(error).split())


def _remedy(error: psycopg.Error) -> str:
    return _REMEDIES.get(error.sqlstate or "", "the server's log tells more")
