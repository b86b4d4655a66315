"""The flow of money by time bucket, from any number of polls: what a page shows for each runner. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from racepool.protocol.errors import InvalidRaceError
from racepool.races.fields import rule_text
from racepool.races.previous_amounts import AMOUNT_RULE, LARGEST_AMOUNT
from racepool.races.row_values import INSTANT_RULE, field_of, instant, plain
from racepool.races.transformed_race import MoneyFlowRecord


class BucketFlow(BaseModel):
    """The money on one entrant in one time bucket. All amounts are in cents.

    The money that came in during the bucket is `incremental_win_amount - baseline_win_amount`; likewise for place. The
    baseline is taken off because the increment of a first poll is all money so far, also the money that came in before
    the bucket.

    Attributes:
        race_id: the race's id at the tote.
        entrant_id: the entrant's id at the tote.
        time_interval: the bucket, in minutes before the start, as in the records.
        win_pool_amount: the amount of the last record in the bucket.
        place_pool_amount: the amount of the last record in the bucket.
        incremental_win_amount: the sum of the increments of all records in the bucket.
        incremental_place_amount: the sum of the increments of all records in the bucket.
        baseline_win_amount: the part of `incremental_win_amount` that comes from baseline records.
        baseline_place_amount: the part of `incremental_place_amount` that comes from baseline records.
        is_baseline: whether the bucket has a baseline record.
        poll_count: how many records the bucket has.
        first_at: the instant of its first record, UTC.
        last_at: the instant of its last record, UTC.
    """

    model_config = ConfigDict(frozen=True)

    race_id: str
    entrant_id: str
    time_interval: float
    win_pool_amount: int
    place_pool_amount: int
    incremental_win_amount: int
    incremental_place_amount: int
    baseline_win_amount: int
    baseline_place_amount: int
    is_baseline: bool
    poll_count: int
    first_at: AwareDatetime
    last_at: AwareDatetime


def _cents(value: object) -> int:
    number = plain(value)
    if not isinstance(number, int) or isinstance(number, bool):
        raise PydanticCustomError("cents", "must be a whole number of cents")
    return number


def _amount(value: object) -> int:
    number = _cents(value)
    if not 0 <= number <= LARGEST_AMOUNT:
        raise PydanticCustomError("amount", AMOUNT_RULE)
    return number


def _utc(value: object) -> datetime:
    polled_at = instant(value)
    if polled_at is None:
        raise PydanticCustomError("instant", INSTANT_RULE)
    return polled_at


_ABOUT: Final = "the list of records"
_Text: TypeAlias = Annotated[str, Strict(), BeforeValidator(plain)]
_Cents: TypeAlias = Annotated[int, PlainValidator(_cents)]
_Amount: TypeAlias = Annotated[int, PlainValidator(_amount)]
_Minutes: TypeAlias = Annotated[float, Strict(), Field(allow_inf_nan=False)]
_Instant: TypeAlias = Annotated[datetime, PlainValidator(_utc)]


class _Row(BaseModel):
    """What a flow needs of a record."""

    race_id: _Text
    entrant_id: _Text
    time_interval: _Minutes
    polling_timestamp: _Instant
    is_baseline: bool
    win_pool_amount: _Amount
    place_pool_amount: _Amount
    incremental_win_amount: _Cents
    incremental_place_amount: _Cents


_ROW = TypeAdapter(_Row)


def bucket_flows(records: Iterable[MoneyFlowRecord | Mapping[str, Any]]) -> Iterator[BucketFlow]:
    """Adds up records by race, entrant and time bucket.

    If the records are of all polls of a race, the increments of an entrant add up, over all buckets, to its last told
    amount.

    Args:
        records: money-flow records, or rows of a database with the same keys or attributes; of any number of polls and
            races, in any order. The call reads all of them before it returns. Amounts are whole cents; only the
            increments may be negative.

    Returns:
        An iterator with a flow for each race, entrant and bucket that has a record, in the order of their first
        records.

    Raises:
        InvalidRaceError: a row lacks a key or has a broken value, or an entrant has two records at the same instant.
            `errors` names the row by its index. The call itself raises it, not the iterator.

    Example:
        >>> for flow in bucket_flows(result.money_flow_records):
        ...     print(flow.time_interval, flow.incremental_win_amount - flow.baseline_win_amount)
    """
    buckets: dict[tuple[str, str, float], list[_Row | MoneyFlowRecord]] = {}
    seen: set[tuple[object, ...]] = set()
    for index, record in enumerate(records):
        row = record if isinstance(record, MoneyFlowRecord) else _row(record, index)
        poll = (row.race_id, row.entrant_id, _polled_at(row))
        if poll in seen:
            raise InvalidRaceError(
                [(f"records.{index}", f"entrant {row.entrant_id!r} has a record of {row.polling_timestamp} already")],
                about=_ABOUT,
            )
        seen.add(poll)
        buckets.setdefault((row.race_id, row.entrant_id, float(row.time_interval)), []).append(row)
    return (_flow(*bucket, rows) for bucket, rows in buckets.items())


def _polled_at(row: _Row | MoneyFlowRecord) -> datetime:
    """In UTC, also of a record that a caller made with a local time."""
    return row.polling_timestamp.astimezone(UTC)


def _flow(race_id: str, entrant_id: str, time_interval: float, rows: list[_Row | MoneyFlowRecord]) -> BucketFlow:
    rows.sort(key=_polled_at)
    first, last = rows[0], rows[-1]
    baseline = [row for row in rows if row.is_baseline]
    return BucketFlow(
        race_id=race_id,
        entrant_id=entrant_id,
        time_interval=time_interval,
        win_pool_amount=last.win_pool_amount,
        place_pool_amount=last.place_pool_amount,
        incremental_win_amount=sum(row.incremental_win_amount for row in rows),
        incremental_place_amount=sum(row.incremental_place_amount for row in rows),
        baseline_win_amount=sum(row.incremental_win_amount for row in baseline),
        baseline_place_amount=sum(row.incremental_place_amount for row in baseline),
        is_baseline=bool(baseline),
        poll_count=len(rows),
        first_at=_polled_at(first),
        last_at=_polled_at(last),
    )


def _row(row: Any, index: int) -> _Row:  # noqa: ANN401  # a row of any database driver
    try:
        return _ROW.validate_python({key: field_of(row, key) for key in _Row.model_fields})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        broken = [(f"records.{index}.{each['loc'][0]}", rule_text(each)) for each in details]
    except (LookupError, AttributeError):  # a key is missing
        broken = [(f"records.{index}", f"must be a money-flow record, or a row with {', '.join(_Row.model_fields)}")]
    raise InvalidRaceError(broken, about=_ABOUT)
