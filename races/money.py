"""Exact money: decimals and integers only, rounded half up, independent of the ambient decimal context.

A number counts as its shortest decimal text, so that 33333.33 dollars are 3333333 cents.
"""

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from functools import reduce
from typing import Final, TypeAlias

Exact: TypeAlias = int | Decimal

# A double has at most 1 + 324 + 16 decimal places and a race's numbers 13 digits before the point: 500 digits hold any
# sum. Inexact is trapped to prove it.
_EXACT: Final = Context(prec=500, traps=[DivisionByZero, Inexact, InvalidOperation])
_NOTHING: Final[Exact] = 0
_WHOLE_FLOATS: Final = 2**53  # below it, floats without a fraction add up exactly


def exact_sum(numbers: Sequence[float]) -> Exact:
    """The sum of finite numbers from 0 on, each taken as its shortest decimal text."""
    if len(numbers) == 1:
        return _exact(numbers[0])
    total = sum(numbers)
    if total < _WHOLE_FLOATS and all(map(float.is_integer, numbers)):
        return int(total)
    return add_up(map(_exact, numbers))


def _exact(number: float) -> Exact:
    return int(number) if number.is_integer() and number < _WHOLE_FLOATS else Decimal(repr(number))


def add_up(numbers: Iterable[Exact]) -> Exact:
    """The exact sum, whatever the current decimal context; of whole numbers a whole number, which costs least."""
    return reduce(_plus, numbers, _NOTHING)


def _plus(one: Exact, other: Exact) -> Exact:
    return one + other if isinstance(one, int) and isinstance(other, int) else _EXACT.add(one, other)


def cents(dollars: Exact) -> int:
    """Dollars in whole cents, rounded half up."""
    numerator, denominator = dollars.as_integer_ratio()
    return _round_half_up(100 * numerator, denominator)


def shares_of(pools_cents: Iterable[int], percentage: Exact) -> list[int]:
    """`percentage` percent of each pool, in whole cents, rounded half up."""
    numerator, denominator = percentage.as_integer_ratio()
    return [_round_half_up(pool_cents * numerator, 100 * denominator) for pool_cents in pools_cents]


def percentage_of(pool_cents: int, amount_cents: int) -> float | None:
    """What part of the pool the amount is, unrounded; None of an empty pool."""
    return 100 * amount_cents / pool_cents if pool_cents else None


def _round_half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
