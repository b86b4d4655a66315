"""The store that a service uses: its promises, and its checks of arguments. The modules beside it do the work."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from racepool.protocol.errors import StoreError
from racepool.protocol.extras import remedy
from racepool.races.bucket_flow import BucketFlow
from racepool.races.money_row import PollRows
from racepool.races.transformed_race import TransformedRace

if TYPE_CHECKING:
    from racepool.storage.schema import Connection

T = TypeVar("T")


class PostgresStore:
    """Keeps the money flow of races in PostgreSQL, in the schema `racepool` of a database.

    Needs the extra `postgres`. It connects at its first call. Use it in one event loop only, from any number of tasks.
    At the end, call `aclose()`, or use it in `async with`. All its methods raise `StoreError` if the database fails;
    `write`, `previous` and `bucket_flows` also if the tables are missing or have another version. A call that is
    cancelled leaves the store usable.

    If the server goes away or restarts during a call, the call is tried again for `retry_s`. That is harmless, because
    a repeated write changes nothing.

    Args:
        dsn: the database, and the role that uses it: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or
            `host=... dbname=...`. For a part that it leaves out, the variable counts: PGHOST, PGUSER, PGPASSWORD and so
            on.
        connections: how many connections may be open at once, 1 or more. If all are in use, a call waits for one.
        retry_s: for how many seconds a call tries again while the server is away, counted from the first failure. A
            `write` of many polls does so for each hundred polls.

    Raises:
        StoreError: the extra is missing, the dsn has a wrong form, or `connections` is less than 1.

    Example:
        >>> async with PostgresStore("postgresql://racing@db/racing") as store:
        ...     await store.create()
        ...     previous = await store.previous([race_id])
        ...     result = await pool.exec(body, previous=previous[race_id])
        ...     await store.write([result])
    """

    def __init__(self, dsn: str, *, connections: int = 4, retry_s: float = 30.0) -> None:
        try:
            from racepool.storage import connections as opened  # noqa: PLC0415  # they need an extra
            from racepool.storage import poll_reading, poll_writing, schema  # noqa: PLC0415
        except ImportError as error:
            raise StoreError(
                f"PostgresStore needs psycopg, which cannot be imported ({error}): {remedy('postgres')}"
            ) from error
        if connections < 1:
            raise StoreError(f"connections={connections}: must be 1 or more")
        self._schema = schema
        self._reading = poll_reading
        self._connections = opened.Connections(dsn, connections, retry_s)
        self._writing = poll_writing.PollWriting(self._connections)
        self._is_checked = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the idle connections. Does not wait for calls that still run.

        Such a call ends its present transaction, and then closes its connection; what it still has to do after that
        raises `StoreError`, as every later call does.
        """
        await self._connections.close()

    async def create(self) -> None:
        """Makes the tables, unless they are there already. Several programs may call it at once.

        Raises:
            StoreError: the database failed, or the tables are there in another version; the text names both versions.
        """
        await self._connections.run(self._schema.create)
        self._is_checked = True

    async def write(self, results: Iterable[TransformedRace | PollRows]) -> None:
        """Writes polls, of any races and in any order.

        Each poll is written whole or not at all. A poll that is written again, of the same race and instant, replaces
        what was written before. A poll that tells no money is written, too. The polls are taken from `results` by the
        hundred, and each hundred is one transaction.

        A poll that the database cannot hold is left out, for example if a text has a NUL character, or if an amount is
        larger than a bigint. All other polls are written. Then an error tells how many were left out, and names the
        first five of them.

        Args:
            results: the results of `exec` or `transform_race`, or their rows (`PollRows`). They are taken by the
                hundred, so a generator of many polls needs little memory.

        Raises:
            StoreError: the database failed, and an unknown part of the polls is written: write all of them again. Or
                some polls cannot be stored.
        """
        await self._check()
        await self._writing.write(results)

    async def previous(self, race_ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """The amounts from which the next poll of each race counts, for `previous` of `exec` and `transform_race`.

        Args:
            race_ids: the ids of any number of races.

        Returns:
            For each given race id, the latest row of each entrant: `race_id`, `entrant_id`, `polling_timestamp` (UTC),
            `win_pool_amount` and `place_pool_amount` (cents). The amounts of an entrant that has no row, but is in the
            baseline of the latest poll, come with the instant of that poll. The list is empty for a race without polls,
            and for a race whose polls have told no money.

        Raises:
            TypeError: `race_ids` is one text instead of several, or has an id that is no text.
            StoreError: the database failed.
        """
        asked = [] if isinstance(race_ids, str) else list(race_ids)
        if isinstance(race_ids, str) or not all(isinstance(race_id, str) for race_id in asked):  # a UUID finds nothing
            raise TypeError("race_ids must be a list of ids, each as text")
        return await self._read(partial(self._reading.read_previous, asked))

    async def bucket_flows(self, race_id: str) -> list[BucketFlow]:
        """The flow of money by time bucket, of all polls of this race.

        Args:
            race_id: the race's id at the tote.

        Returns:
            The same flows as `racepool.bucket_flows` makes from the race's records, sorted by first instant and entrant
            id. Empty for a race without records. They come from the view `racepool.bucket_flows` of the database, which
            other programs can read, too.

        Raises:
            StoreError: the database failed.
        """
        return await self._read(partial(self._reading.read_bucket_flows, race_id))

    async def _read(self, work: "Callable[[Connection], Awaitable[T]]") -> T:
        await self._check()
        return await self._connections.run(work)

    async def _check(self) -> None:
        if not self._is_checked:
            await self._connections.run(self._schema.check)
            self._is_checked = True
