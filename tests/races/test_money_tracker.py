from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from racepool.races.money_tracker import add_up_entries


def test_percentage_of_an_entrant_is_the_sum_of_its_entries() -> None:
    percentages = add_up_entries([("e1", 5.5), ("e2", 0.0), ("e1", 0.1), ("e1", 0.2), ("e2", 0.0)])

    assert percentages.of("e1") == 5.8
    assert percentages.of("e2") == 0.0
    assert percentages.total == Decimal("5.8")


def test_entrant_without_entries_has_none() -> None:
    percentages = add_up_entries([("e1", None), (None, 3.0)])

    assert percentages.of("e1") is None
    assert percentages.of("e2") is None
    assert percentages.total == 3


def test_without_percentages_the_total_is_unknown() -> None:
    assert add_up_entries([]).total is None
    assert add_up_entries([("e1", None)]).total is None
    assert add_up_entries([("e1", 0.0)]).total == 0


@given(st.lists(st.tuples(st.none() | st.sampled_from("abc"), st.none() | st.floats(0, 1e12))))
def test_order_of_entries_does_not_matter(entries: list[tuple[str | None, float | None]]) -> None:
    assert add_up_entries(entries).total == add_up_entries(reversed(entries)).total
    assert add_up_entries(entries).by_entrant == add_up_entries(reversed(entries)).by_entrant
