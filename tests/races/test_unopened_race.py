import copy
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import ValidationError

from racepool.races.race import RaceData
from racepool.races.transform import transform_race
from racepool.races.transformed_race import MoneyFlowRecord, TransformedEntrant, TransformedRace
from racepool.races.unopened_race import JsonParts, json_parts, unopened

POLLED_AT = datetime(2025, 7, 17, 0, 12, tzinfo=UTC)
BODY = Path("samples/thoroughbred.json").read_bytes()


def transformed() -> TransformedRace:
    return transform_race(RaceData.parse(BODY), polled_at=POLLED_AT)


def opened() -> TransformedRace:
    return TransformedRace.model_validate_json(transformed().model_dump_json())


def from_json() -> TransformedRace:
    return unopened(json_parts(opened()))


MAKERS = pytest.mark.parametrize("make", [transformed, from_json])
Make = Callable[[], TransformedRace]
Look = Callable[[TransformedRace], object]
LOOKS: dict[str, Look] = {
    "field": lambda race: race.money_flow_records,
    "vars": vars,
    "dump": lambda race: race.model_dump(),
    "json": lambda race: race.model_dump_json(),
    "repr": lambda race: repr(race).partition("transformed_at")[0],  # the two UTC zones have different reprs
    "hash": hash,
    "fields set": lambda race: race.model_fields_set,
    "iteration": list,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda race: pickle.loads(pickle.dumps(race)),  # noqa: S301  # our own
    "model copy": lambda race: race.model_copy(update={"race_name": "another"}),
    "validation": TransformedRace.model_validate,
}


@MAKERS
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_look_finds_what_an_opened_race_has(make: Make, look: Look) -> None:
    race = make()

    assert look(race) == look(opened())
    assert look(race) == look(opened())


@MAKERS
def test_its_json_has_the_fields_of_the_models_and_no_others(make: Make) -> None:
    parts = json_parts(make())

    [entrant, record] = (json.loads(part)[0] for part in (parts.entrants, parts.money_flow_records))
    assert entrant.keys() == TransformedEntrant.model_fields.keys()
    assert record.keys() == MoneyFlowRecord.model_fields.keys()
    assert json.loads(parts.head).keys() == TransformedRace.model_fields.keys() - {"entrants", "money_flow_records"}


@MAKERS
def test_it_equals_an_opened_race_either_way_round(make: Make) -> None:
    assert make() == opened()
    assert opened() == make()
    assert make() == make()


@MAKERS
def test_it_is_a_transformed_race_before_anybody_looks(make: Make) -> None:
    race = make()

    assert isinstance(race, TransformedRace)
    assert type(race) is not TransformedRace


@MAKERS
def test_its_json_is_read_as_the_same_race_without_opening_it(make: Make) -> None:
    race = make()

    assert json_parts(race).race() == opened()
    assert type(race) is not TransformedRace


def test_fields_are_read_one_by_one_and_once() -> None:
    race = from_json()

    records = race.money_flow_records
    assert records == opened().money_flow_records
    assert type(race) is not TransformedRace
    assert race.model_dump() == opened().model_dump()
    assert type(race) is TransformedRace
    assert race.money_flow_records is records


def test_each_part_is_parsed_once_also_while_the_race_is_unopened() -> None:
    race = from_json()

    for name in ("metrics", "race", "race_pools", "entrants", "money_flow_records"):
        assert getattr(race, name) is getattr(race, name)
    assert type(race) is not TransformedRace


@pytest.mark.parametrize("name", TransformedRace.model_fields)
def test_each_field_alone_is_that_of_an_opened_race(name: str) -> None:
    assert getattr(from_json(), name) == getattr(opened(), name)
    assert getattr(transformed(), name) == getattr(opened(), name)


def test_amount_beyond_64_bits_is_packed_all_the_same() -> None:
    amount = 2**70
    fields = opened().model_dump()
    fields["race_pools"]["other_pool_total"] = amount

    race = json_parts(unopened(fields)).race()

    assert race.race_pools is not None
    assert race.race_pools.other_pool_total == amount


@MAKERS
def test_threads_that_look_at_once_see_the_whole(make: Make) -> None:
    expected = opened()
    for _ in range(50):
        race, barrier = make(), Barrier(4)

        def look(race: TransformedRace = race, barrier: Barrier = barrier) -> bool:
            barrier.wait(10)
            return race.entrants == expected.entrants and race.race_id == expected.race_id

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(lambda look: look(), [look] * 4))


def test_broken_one_raises_at_the_first_look_and_at_the_next() -> None:
    race = unopened(JsonParts(b"{}", b"[{}]", b"[]"))

    for _ in range(2):
        with pytest.raises(ValidationError):
            _ = race.race_id
        with pytest.raises(ValidationError):
            _ = race.entrants


def test_it_stays_frozen() -> None:
    race = transformed()

    with pytest.raises(ValidationError, match="frozen"):
        race.race_name = "another"  # type: ignore[misc]  # that is what is tested
