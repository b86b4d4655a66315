from typing import Any

import pytest

from racepool.races.pools import read_pools
from racepool.races.race import RaceData


def race(tote: Any = None, held: Any = None) -> RaceData:  # noqa: ANN401
    fields = {"id": "r1", "name": "Cup", "status": "open", "race_date_nz": "2025-07-17", "start_time_nz": "12:50"}
    tote_pools = tote and [{"product_type": product_type, "total": total} for product_type, total in tote]
    return RaceData.parse({**fields, "tote_pools": tote_pools, "pools": held})


def pools_of(tote: Any = None, held: Any = None) -> dict[str, Any]:  # noqa: ANN401
    report, _ = read_pools(race(tote, held))
    assert report is not None
    return report.race_pools("r1")


MULTI_LEG = (
    *("double", "runningdouble", "dailydouble", "treble", "quadrella", "earlyquadrella", "quaddie", "earlyquaddie"),
    *("place6", "pick6", "big6"),
)


@pytest.mark.parametrize(
    ("product_type", "field"),
    [
        *[(kind, f"{kind}_pool_total") for kind in ("win", "place", "quinella", "trifecta", "exacta")],
        *[(kind, "first4_pool_total") for kind in ("first4", "firstfour", "First 4", "FIRST-FOUR", "FirstFour")],
        *[
            (kind, "multi_leg_pool_total")
            for kind in (*MULTI_LEG, "Running Double", "EarlyQuadrella", "Pick 6", " BIG-6 ")
        ],
        *[(kind, "other_pool_total") for kind in ("Duet", "win!", "", None, "first 5", "win_")],
    ],
)
def test_product_types_go_to_their_fields(product_type: str | None, field: str) -> None:
    pools = pools_of([(product_type, 12.345)])

    totals = {name: total for name, total in pools.items() if name.endswith("_pool_total")}
    assert {name: total for name, total in totals.items() if total} == {field: 1235}
    assert len(totals) == 8
    assert (pools["total_race_pool"], pools["extracted_pools"], pools["currency"]) == (1235, 1, "NZD")


def test_several_pools_of_one_field_are_added_up_and_rounded_once() -> None:
    pools = pools_of([("Win", 1.004), ("WIN", 1.004), ("Double", 5), ("Treble", 7.5), ("Place", 0.1)])

    assert (pools["win_pool_total"], pools["multi_leg_pool_total"], pools["place_pool_total"]) == (201, 1250, 10)
    assert (pools["total_race_pool"], pools["extracted_pools"]) == (1461, 5)


@pytest.mark.parametrize(
    ("tote", "score"),
    [
        ([("Win", 1), ("Place", 1)], 100),
        ([("Win", 1), ("Place", 1), ("Duet", 1)], 95),
        ([("Win", 1), ("Place", 1), ("Duet", 1), ("DUET", 2), ("Odds", 1)], 90),
        ([("Win", 1)], 70),
        ([("Win", 1), ("Place", 0)], 70),
        ([("Win", None), ("Place", 5)], 70),
        ([("Quinella", 1)], 70),
        ([("Duet", 1)], 65),
        ([(f"odd {number}", 1) for number in range(30)], 0),
    ],
)
def test_quality_score_tells_what_is_missing(tote: list[tuple[str, float]], score: int) -> None:
    assert pools_of(tote)["data_quality_score"] == score


def test_unrecognised_types_are_named_once_as_first_written() -> None:
    report, _ = read_pools(race([("Big Duet", 1), ("bigduet", 2), ("Win", 1), (None, 3), ("", 4)]))

    assert report is not None
    assert report.unrecognised == ("Big Duet", "")


def test_pool_of_zero_was_read() -> None:
    pools = pools_of([("Win", 5), ("Place", 5), ("Exacta", 0), ("Duet", 0)])

    assert (pools["extracted_pools"], pools["data_quality_score"]) == (4, 95)


def test_pool_without_a_total_was_not_read() -> None:
    pools = pools_of([("Win", 5), ("Place", None), ("Duet", None)])

    assert (pools["extracted_pools"], pools["win_pool_total"], pools["place_pool_total"]) == (1, 500, 0)
    assert pools["data_quality_score"] == 70


@pytest.mark.parametrize(
    ("held", "win", "place", "score", "extracted"),
    [
        ({"winPool": 10, "placePool": 5, "totalPool": 99}, 1000, 500, 100, 2),
        ({"winPool": 10}, 1000, 0, 70, 1),
        ({"placePool": 5, "winPool": None}, 0, 500, 70, 1),
        ({"winPool": 0, "placePool": 5}, 0, 500, 70, 2),
    ],
)
def test_without_tote_pools_win_and_place_come_from_the_held_pools(
    held: dict[str, Any], win: int, place: int, score: int, extracted: int
) -> None:
    neither: tuple[Any, ...] = (None, [])
    for tote in neither:
        pools = pools_of(tote, held)

        assert (pools["win_pool_total"], pools["place_pool_total"], pools["total_race_pool"]) == (
            win,
            place,
            win + place,
        )
        assert (pools["data_quality_score"], pools["extracted_pools"]) == (score, extracted)


@pytest.mark.parametrize("held", [None, {}, {"totalPool": 125}, {"winPool": None, "placePool": None}])
def test_without_either_there_is_no_report(held: dict[str, Any] | None) -> None:
    report, money = read_pools(race(None, held))

    assert report is None
    assert money.are_unknown
    assert money == (None, None)


@pytest.mark.parametrize(
    ("held", "money"),
    [
        ({"winPool": 10, "placePool": 5}, (1000, 500)),
        ({"winPool": 10}, (1000, 8000)),
        ({"placePool": 5}, (7000, 500)),
        ({"winPool": 0, "placePool": 0}, (0, 0)),
        (None, (7000, 8000)),
        ({"winPool": None, "placePool": None, "totalPool": 125}, (7000, 8000)),
    ],
)
def test_money_comes_from_the_held_pools_before_the_tote_pools(held: Any, money: tuple[int, int]) -> None:  # noqa: ANN401
    report, told = read_pools(race([("Win", 70), ("Place", 80)], held))

    assert told == money
    assert report is not None
    assert report.race_pools("r1")["win_pool_total"] == 7000


@pytest.mark.parametrize(
    ("tote", "count"),
    [([("Win", 1), ("Place", 0)], 1), ([("Win", 1), ("Place", 2), ("Duet", 3), ("Exacta", 1)], 4), ([("Win", 0)], 0)],
)
def test_field_count_is_that_of_pools_with_money(tote: list[tuple[str, float]], count: int) -> None:
    report, _ = read_pools(race(tote))

    assert report is not None
    assert report.field_count == count
