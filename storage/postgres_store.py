"""The store for a service: what it promises. The modules beside it keep the promises."""

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

    Needs the extra `postgres`. It connects at its first call. One event loop uses it, with any number of tasks. At the
    end, call `aclose()`, or use it in `async with`. All its methods raise `StoreError` if the database fails. A call
    that is cancelled leaves the store usable.

    If the server goes away in the middle of a call, or starts again, the call is repeated until it succeeds. That is
    harmless, because a repeated write changes nothing.

    Args:
        dsn: which database, and who: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, or `host=... dbname=...`. The
            variables PGHOST, PGUSER, PGPASSWORD and so on stand in for what it leaves out.
        connections: how many connections are open at most. More calls than that wait for each other.
        retry_s: for how many seconds a call tries again while the server is away; a `write` of many polls tries so for
            each hundred polls. The time counts from the first failure.

    Raises:
        StoreError: the extra is missing, or the dsn has a wrong form.

    Example:
        >>> async with PostgresStore("postgresql://racing@db/racing") as store:
        ...     await store.create()
        ...     previous = await store.previous([race_id])
        ...     result = await pool.exec(body, previous=previous[race_id])
        ...     await store.write([result])
    """

    def __init__(self, dsn: str, *, connections: int = 4, retry_s: float = 30.0) -> None:
        try:
            from racepool.storage import connections as opened  # noqa: PLC0415  # all these need an extra
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
        """Closes the connections. Every later call raises `StoreError`.

        It does not wait for calls that still run: they go on, but raise `StoreError` before they write another hundred
        polls or try again. So await your calls first.
        """
        await self._connections.close()

    async def create(self) -> None:
        """Makes the tables, unless they are there already. Several programs may call it at once.

        Raises:
            StoreError: the tables are there in another version; the text names both versions.
        """
        await self._connections.run(self._schema.create)
        self._is_checked = True

    async def write(self, results: Iterable[TransformedRace | PollRows]) -> None:
        """Writes polls, of any races and in any order.

        Each poll is written whole or not at all. A poll that is written again, of the same race and instant, replaces
        what was written before. A poll that tells no money is written, too. The polls are taken from `results` by the
        hundred, and each hundred is one transaction.

        A poll that the database cannot hold is left out: a text has a NUL character, or an amount is larger than a
        bigint. All other polls are written. Then the error names those that were left out.

        Raises:
            StoreError: the database failed, and an unknown part of the polls is written: write all of them again. Or
                some polls cannot be stored.
        """
        await self._check()
        await self._writing.write(results)

    async def previous(self, race_ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """The amounts from which the next poll of each race counts, for `previous` of `exec` and `transform_race`.

        Returns:
            For each asked race id, the latest row of each entrant: `race_id`, `entrant_id`, `polling_timestamp`,
            `win_pool_amount` and `place_pool_amount`. The amounts of an entrant that has no row, but is in the baseline
            of the latest poll, come with the instant of that poll. The list is empty for a race without polls, and for
            one of which no poll told any money.

        Raises:
            TypeError: `race_ids` is one text, or has an id that is no text.
        """
        asked = [] if isinstance(race_ids, str) else list(race_ids)
        if isinstance(race_ids, str) or not all(isinstance(race_id, str) for race_id in asked):  # a UUID finds nothing
            raise TypeError("race_ids must be a list of ids, each as text")
        return await self._read(partial(self._reading.read_previous, asked))

    async def bucket_flows(self, race_id: str) -> list[BucketFlow]:
        """The flow of money by time bucket, of all polls of this race.

        Returns:
            What `racepool.bucket_flows` makes of the race's records, by first instant and entrant id. They are
            read from the view `racepool.bucket_flows`, which any other program can read, too.
        """
        return await self._read(partial(self._reading.read_bucket_flows, race_id))

    async def _read(self, work: "Callable[[Connection], Awaitable[T]]") -> T:
        await self._check()
        return await self._connections.run(work)

    async def _check(self) -> None:
        if not self._is_checked:
            await self._connections.run(self._schema.check)
            self._is_checked = True
