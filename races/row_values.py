"""The values of a database's rows, as a money-flow record has them."""

from datetime import datetime
from decimal import Decimal
from typing import Final, TypeGuard
from uuid import UUID

INSTANT_RULE: Final = "must be an instant with a time zone"


def plain(value: object) -> object:
    """The value as JSON has it, if it is one that database drivers return instead: a UUID, or a whole Decimal."""
    match value:
        case UUID():
            return str(value)
        case Decimal() if value.is_finite() and value == value.to_integral_value():
            return int(value)
        case _:
            return value


def instant(value: object) -> object:
    """The instant, if the value is text of one; else the value as it is."""
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


def is_aware(value: object) -> TypeGuard[datetime]:
    """Whether the value is an instant with a time zone."""
    return isinstance(value, datetime) and value.utcoffset() is not None
