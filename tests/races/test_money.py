from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.races.fields import LARGEST_NUMBER
from racepool.races.money import add_up, cents, exact_sum, percentage_of, shares_of

numbers = st.floats(0, LARGEST_NUMBER)


def half_up(value: Fraction) -> int:
    whole, part = divmod(value, 1)
    return int(whole) + (part >= Fraction(1, 2))


@pytest.mark.parametrize(
    ("win", "place", "hold", "amounts"),
    [
        (50_000.0, 30_000.0, 15.5, [775_000, 465_000, 1_240_000]),
        (33_333.33, 22_222.22, 10.5, [350_000, 233_333, 583_333]),
        (75_000.0, 50_000.0, 11.0, [825_000, 550_000, 1_375_000]),
        (9_151.38, 3_923.51, 18.0, [164_725, 70_623, 235_348]),
    ],
)
def test_worked_figures_come_out(win: float, place: float, hold: float, amounts: list[int]) -> None:
    pools = [cents(exact_sum([win])), cents(exact_sum([place]))]

    assert shares_of([*pools, sum(pools)], exact_sum([hold])) == amounts


@pytest.mark.parametrize(
    ("dollars", "rounded"),
    [("0.005", 1), ("0.0049999999", 0), ("1.005", 101), ("2.675", 268), ("0.015", 2), ("0.025", 3), ("0", 0)],
)
def test_dollars_are_rounded_half_up_to_cents(dollars: str, rounded: int) -> None:
    assert cents(Decimal(dollars)) == rounded
    assert cents(exact_sum([float(dollars)])) == rounded


def test_share_is_rounded_half_up() -> None:
    assert shares_of([100, 300, 101], Decimal("0.5")) == [1, 2, 1]


@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ([], "0"),
        ([0.1, 0.2], "0.3"),
        ([0.1] * 10, "1"),
        ([5.0, 6.0], "11"),
        ([2.0**53, 1.0], "9007199254740993"),
        ([float(LARGEST_NUMBER), 5e-324], f"{LARGEST_NUMBER}.{'0' * 323}5"),
    ],
)
def test_sums_are_exact(parts: list[float], total: str) -> None:
    assert exact_sum(parts) == Decimal(total)


def test_sums_do_not_depend_on_the_callers_decimal_context() -> None:
    with localcontext() as context:
        context.prec = 2
        total = add_up([Decimal("123.45"), exact_sum([0.1, 0.25])])

    assert total == Decimal("123.80")


@given(st.lists(numbers))
def test_sum_is_that_of_the_shortest_decimal_texts(parts: list[float]) -> None:
    assert Fraction(exact_sum(parts)) == sum((Fraction(repr(part)) for part in parts), Fraction(0))


@given(numbers)
def test_cents_equal_those_of_an_oracle_in_fractions(dollars: float) -> None:
    assert cents(exact_sum([dollars])) == half_up(Fraction(repr(dollars)) * 100)


@given(st.integers(0, 10**14), st.lists(numbers, max_size=5))
def test_shares_equal_those_of_an_oracle_in_fractions(pool: int, percentages: list[float]) -> None:
    percentage = sum((Fraction(repr(part)) for part in percentages), Fraction(0))

    assert shares_of([pool], exact_sum(percentages)) == [half_up(pool * percentage / 100)]


def test_percentage_of_an_empty_pool_is_none() -> None:
    assert percentage_of(0, 0) is None
    assert percentage_of(5_000, 0) == 0.0
    assert percentage_of(915_138, 164_725) == 100 * 164_725 / 915_138
