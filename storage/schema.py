"""The tables in the database: made once, versioned, with a partition for each day of races in New Zealand."""

from datetime import date
from pathlib import Path
from typing import Any, Final, TypeAlias

from psycopg import AsyncConnection, sql

from racepool.protocol.errors import StoreError

Connection: TypeAlias = AsyncConnection[Any]

VERSION: Final = 1  # of the tables; schema.sql stores the same number
_TABLES: Final = Path(__file__).with_name("schema.sql")
_LOCK: Final = (
    7224150  # any number; the advisory lock of programs that change the tables, so that only one does at a time
)


async def create(connection: Connection) -> None:
    """Makes the tables, or makes sure that they are there in our version.

    Raises:
        StoreError: they are there in another version.
    """
    async with connection.transaction():
        await _lock(connection)
        if await _version(connection) is None:
            await connection.execute(_TABLES.read_bytes())
    await check(connection)


async def check(connection: Connection) -> None:
    """Makes sure that the tables are there in our version.

    Raises:
        StoreError: they are not.
    """
    version = await _version(connection)
    if version is None:
        raise StoreError("the database has no tables of racepool; call create() first")
    if version != VERSION:
        raise StoreError(
            f"the tables of racepool in the database have version {version}, and this racepool needs version {VERSION}"
            "; install the racepool that made them, or use another database"
        )


async def make_day(connection: Connection, day: date) -> None:
    """Makes the partition of this day if it is missing.

    It is made as a separate table and then attached. CREATE TABLE ... PARTITION OF would wait for the readers and
    writers of all other days.
    """
    name = "money_flow_" + day.isoformat().replace("-", "")
    table = sql.Identifier("racepool", name)
    async with connection.transaction():
        await _lock(connection)
        found = await connection.execute(
            "SELECT 1 FROM pg_inherits "
            "WHERE inhparent = 'racepool.money_flow'::regclass AND inhrelid = to_regclass(%s)",
            [f"racepool.{name}"],
        )
        if await found.fetchone():
            return
        await connection.execute(
            sql.SQL(
                "CREATE TABLE {table} (LIKE racepool.money_flow INCLUDING DEFAULTS); "
                "ALTER TABLE racepool.money_flow ATTACH PARTITION {table} "
                "FOR VALUES FROM ({day}::date) TO ({day}::date + 1)"
            ).format(table=table, day=sql.Literal(day.isoformat()))
        )


async def _lock(connection: Connection) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


async def _version(connection: Connection) -> int | None:
    """The version of the tables; None if there are none."""
    found = await connection.execute("SELECT to_regclass('racepool.schema_version') IS NOT NULL")
    if await found.fetchone() != (True,):
        return None
    found = await connection.execute("SELECT max(version) FROM racepool.schema_version")
    row = await found.fetchone()
    return row[0] if row else None
