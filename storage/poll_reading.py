"""Reads what was stored: the amounts from which the next poll of a race counts, and the flows of a race."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

from psycopg.rows import dict_row

from racepool.races.bucket_flow import BucketFlow
from racepool.storage.schema import Connection

_LATEST_POLLS: Final = """
SELECT race_id, latest.polling_timestamp, latest.kept, days.days
FROM unnest(%s::text[]) AS asked (race_id)
CROSS JOIN LATERAL (
  SELECT polling_timestamp, kept FROM racepool.polls
  WHERE polls.race_id = asked.race_id ORDER BY polling_timestamp DESC LIMIT 1
) AS latest
CROSS JOIN LATERAL (
  SELECT array_agg(DISTINCT race_date_nz) AS days FROM racepool.polls WHERE polls.race_id = asked.race_id
) AS days
"""
_LATEST_ROWS: Final = """
SELECT latest.*
FROM unnest(%s::text[]) AS asked (race_id)
CROSS JOIN LATERAL (
  SELECT DISTINCT ON (entrant_id) race_id, entrant_id, polling_timestamp, win_pool_amount, place_pool_amount
  FROM racepool.money_flow
  WHERE money_flow.race_id = asked.race_id AND race_date_nz = ANY(%s::date[])
  ORDER BY entrant_id DESC, polling_timestamp DESC
) AS latest
"""
"""The order is that of the primary key, read backwards, so that the server need not sort."""
_FLOWS: Final = "SELECT * FROM racepool.bucket_flows WHERE race_id = %s ORDER BY first_at, entrant_id"


async def read_previous(race_ids: Sequence[str], connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Of each race, the latest row of each entrant. If an entrant has none, its row is made from the latest `kept`."""
    found: dict[str, dict[str, dict[str, Any]]] = {race_id: {} for race_id in race_ids}
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # both queries see the same polls
        await cursor.execute(_LATEST_POLLS, [list(found)])
        polls = await cursor.fetchall()
        for poll in polls:
            found[poll["race_id"]] = {
                entrant_id: {
                    "race_id": poll["race_id"],
                    "entrant_id": entrant_id,
                    "polling_timestamp": poll["polling_timestamp"],
                    "win_pool_amount": win,
                    "place_pool_amount": place,
                }
                for entrant_id, (win, place) in poll["kept"].items()
            }
        days = {day for poll in polls for day in poll["days"]}
        await cursor.execute(_LATEST_ROWS, [[poll["race_id"] for poll in polls], sorted(days)])
        for row in await cursor.fetchall():
            found[row["race_id"]][row["entrant_id"]] = row
    return {
        race_id: [{**row, "polling_timestamp": row["polling_timestamp"].astimezone(UTC)} for row in rows.values()]
        for race_id, rows in found.items()
    }


async def read_bucket_flows(race_id: str, connection: Connection) -> list[BucketFlow]:
    """The flows of one race, from the view."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_FLOWS, [race_id])
        rows = await cursor.fetchall()
    return [
        BucketFlow(**{**row, "first_at": row["first_at"].astimezone(UTC), "last_at": row["last_at"].astimezone(UTC)})
        for row in rows
    ]
