from pathlib import Path

import pytest

from benchmarks.loads import LOADS, MIXED, NORMALISED, RAW, Load, read_loads
from benchmarks.races import RACES, RAW_BYTES, write_loads


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Load]:
    folder = tmp_path_factory.mktemp("loads")
    write_loads(folder)
    return read_loads(folder)


def test_every_load_has_races_with_money_in_them(loads: dict[str, Load]) -> None:
    assert tuple(loads) == LOADS
    assert [len(load.races) for load in loads.values()] == [RACES, RACES, RACES * 10]
    assert min(money for load in loads.values() for money in load.money) > 0


def test_raw_bodies_are_as_large_as_real_ones(loads: dict[str, Load]) -> None:
    assert all(isinstance(race, bytes) and abs(len(race) - RAW_BYTES) < 5_000 for race in loads[RAW].races)


def test_same_race_has_the_same_money_in_both_forms(loads: dict[str, Load]) -> None:
    assert loads[NORMALISED].money == loads[RAW].money


def test_every_tenth_race_of_the_mixed_load_is_raw(loads: dict[str, Load]) -> None:
    kinds = [isinstance(race, bytes) for race in loads[MIXED].races]

    assert kinds == [False] * 9 + [True] + kinds[10:]
    assert sum(kinds) == len(kinds) / 10


def test_money_of_tasks_follows_their_numbers() -> None:
    load = Load([b"a", b"b"], [10, 1])

    assert [load.race(number) for number in (0, 1, 2)] == [b"a", b"b", b"a"]
    assert load.money_of(range(3)) == 21


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_loads(tmp_path / name)

    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
