"""Exact money: integers and decimals, rounded half up. The decimal context of the caller's thread has no influence.

A float counts as its shortest decimal text, `repr`: so 33333.33 dollars are 3333333 cents, though the float itself is a
little less or more.
"""

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from typing import Final, TypeAlias

Exact: TypeAlias = int | Decimal

# The shortest text of a double has at most 324 + 17 decimal places, and a number of a race has 13 digits before the
# point. So 500 digits hold any sum. If that were wrong, the trap for Inexact would raise an error.
_EXACT: Final = Context(prec=500, traps=[DivisionByZero, Inexact, InvalidOperation])
_WHOLE_FLOATS: Final = 2**53  # floats without a fraction add up exactly while their sum is below this


def exact_sum(numbers: Sequence[float]) -> Exact:
    """The exact sum of numbers that are finite and not negative; each counts as its shortest decimal text."""
    if len(numbers) == 1:
        return _exact(numbers[0])
    total = sum(numbers)
    if total < _WHOLE_FLOATS and all(map(float.is_integer, numbers)):
        return int(total)
    return add_up(map(_exact, numbers))


def _exact(number: float) -> Exact:
    return int(number) if number.is_integer() and number < _WHOLE_FLOATS else Decimal(repr(number))


def add_up(numbers: Iterable[Exact]) -> Exact:
    """The exact sum. If all numbers are integers, so is the sum: that is the fastest way."""
    total: Exact = 0
    for number in numbers:
        both_whole = isinstance(total, int) and isinstance(number, int)
        total = total + number if both_whole else _EXACT.add(total, number)
    return total


def cents(dollars: Exact) -> int:
    """Dollars as whole cents: round_half_up(100 * dollars)."""
    numerator, denominator = dollars.as_integer_ratio()
    return _round_half_up(100 * numerator, denominator)


def shares_of(pools_cents: Iterable[int], percentage: Exact) -> list[int]:
    """The share of an entrant in each pool, in whole cents: round_half_up(pool * percentage / 100).

    The tote tells no amount of money for an entrant. It tells the pools, and for each entrant the percentage of the
    bets that are on it (its hold). So the money on the entrant is this percentage of the pool.

    Args:
        pools_cents: the pools, in cents.
        percentage: the hold of the entrant, from 0 to 100; may be more if the tote says so.
    """
    numerator, denominator = percentage.as_integer_ratio()
    half = 100 * denominator  # of the divisor, as in _round_half_up, which would be a call for each pool
    return [(2 * numerator * pool_cents + half) // (2 * half) for pool_cents in pools_cents]


def percentage_of(pool_cents: int, amount_cents: int) -> float | None:
    """The amount as a percentage of the pool, not rounded: 100 * amount / pool; None if the pool is 0."""
    return 100 * amount_cents / pool_cents if pool_cents else None


def _round_half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
