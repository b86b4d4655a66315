"""The values of a database's rows, as a money-flow record has them."""

from decimal import Decimal
from uuid import UUID


def plain(value: object) -> object:
    """The value as JSON has it, if it is one that database drivers return instead: a UUID, or a whole Decimal."""
    match value:
        case UUID():
            return str(value)
        case Decimal() if value.is_finite() and value == value.to_integral_value():
            return int(value)
        case _:
            return value
