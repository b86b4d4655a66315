"""Tests of your own code against a real pool, with the pytest plugin of racepool.

The fixture `racepool` is a ZmqPool with its own workers. The first test that asks for it starts it, once for the whole
run. With RACEPOOL_TRANSFORM=mypackage.module:function in the environment, its workers run that function.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from racepool import InvalidRaceError, ZmqPool

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="session")
def racepool_settings() -> Mapping[str, object]:
    """Any setting of the pool, by its name in lower case. Without this fixture the pool has two workers."""
    return {"workers": 1, "run_timeout": 5.0}


def test_second_poll_counts_from_the_first(racepool: ZmqPool) -> None:
    body = (SAMPLES / "thoroughbred.json").read_bytes()

    first = racepool.exec(body).result(timeout=10)
    second = racepool.exec(body, previous=first).result(timeout=10)

    assert sum(record.incremental_win_amount for record in first.money_flow_records) > 0
    assert sum(record.incremental_win_amount for record in second.money_flow_records) == 0, "no money came in between"


def test_polls_of_several_races_are_awaited_together(racepool: ZmqPool) -> None:
    async def poll_all() -> list[str]:
        bodies = [path.read_bytes() for path in sorted(SAMPLES.glob("*.json"))]
        return [race.race_name for race in await asyncio.gather(*map(racepool.exec, bodies))]

    assert len(asyncio.run(poll_all())) == 3


def test_half_a_response_is_refused(racepool: ZmqPool) -> None:
    with pytest.raises(InvalidRaceError):
        racepool.exec(b'{"header": {"title": "Event Det').result(timeout=10)
