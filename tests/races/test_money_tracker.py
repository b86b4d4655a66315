from collections.abc import Iterable
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from racepool.races.money_tracker import Percentages, add_up_entries
from racepool.races.parts import MoneyTrackerEntry


def added_up(pairs: Iterable[tuple[str | None, float | None]]) -> Percentages:
    """The sums of these pairs of id and percentage, as holds; as bets they are the same."""
    holds, bets = add_up_entries(
        MoneyTrackerEntry.model_validate(
            {"entrant_id": entrant_id, "hold_percentage": percentage, "bet_percentage": percentage}
        )
        for entrant_id, percentage in pairs
    )
    assert holds == bets
    return holds


def test_percentage_of_an_entrant_is_the_sum_of_its_entries() -> None:
    percentages = added_up([("e1", 5.5), ("e2", 0.0), ("e1", 0.1), ("e1", 0.2), ("e2", 0.0)])

    assert percentages.by_entrant["e1"] == Decimal("5.8")
    assert percentages.by_entrant["e2"] == 0
    assert percentages.total == Decimal("5.8")


def test_entrant_without_entries_has_none() -> None:
    percentages = added_up([("e1", None), (None, 3.0)])

    assert "e1" not in percentages.by_entrant
    assert "e2" not in percentages.by_entrant
    assert percentages.total == 3


def test_without_percentages_the_total_is_unknown() -> None:
    assert added_up([]).total is None
    assert added_up([("e1", None)]).total is None
    assert added_up([("e1", 0.0)]).total == 0


@given(st.lists(st.tuples(st.none() | st.sampled_from("abc"), st.none() | st.floats(0, 1e12))))
def test_order_of_entries_does_not_matter(entries: list[tuple[str | None, float | None]]) -> None:
    assert added_up(entries).total == added_up(reversed(entries)).total
    assert added_up(entries).by_entrant == added_up(reversed(entries)).by_entrant


def test_holds_and_bets_are_added_up_apart() -> None:
    entries = [{"entrant_id": "e1", "hold_percentage": 5}, {"entrant_id": "e1", "bet_percentage": 7}]

    holds, bets = add_up_entries(map(MoneyTrackerEntry.model_validate, entries))

    assert (holds.by_entrant, bets.by_entrant) == ({"e1": 5}, {"e1": 7})
