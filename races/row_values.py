"""Turns the values of database rows into those of a money-flow record."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

INSTANT_RULE: Final = "must be an instant with a time zone"
_MOST_DIGITS: Final = 30  # of a Decimal that is made an int: with an exponent of millions, that would take minutes


def field_of(row: Any, key: str) -> Any:  # noqa: ANN401  # a row of any database driver
    """The row's value with this key; with this attribute if it is a named tuple or an object of some class.

    Raises:
        LookupError, AttributeError: the row has none.
    """
    try:
        return row[key]
    except TypeError:
        return getattr(row, key)


def plain(value: object) -> object:
    """The text of a UUID, or the int of a whole Decimal, which database drivers return; any other value unchanged."""
    match value:
        case UUID():
            return str(value)
        case Decimal() if value.is_finite() and value.adjusted() < _MOST_DIGITS and value == value.to_integral_value():
            return int(value)
        case _:
            return value


def instant(value: object) -> datetime | None:
    """The instant in UTC, if the value is one, or its text in ISO 8601 format; None if it is not, or has no time zone.

    Drivers return it in the zone of the database session. There, Python would compare two instants by their local
    times, and when the clocks are set back, the later instant may have the earlier local time.
    """
    try:
        told = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(told, datetime) and told.utcoffset() is not None:
            return told.astimezone(UTC)
    except (ValueError, OverflowError):  # not an instant, as pandas' NaT is none; or beyond the calendar
        pass
    return None
