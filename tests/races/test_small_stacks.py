"""A service may start its threads with a small stack. Deep values must not overflow it: that ends the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from datetime import UTC, datetime
from racepool import InvalidRaceError, RaceData, transform_race
from racepool.client.answers import race_id
from racepool.races.payloads import pack_request, pack_result
from racepool.races.previous_amounts import PreviousAmounts

LEVELS, NOW = 20_000, datetime.now(UTC)
RACE = {"id": "r", "name": "n", "race_date_nz": "2026-01-31", "start_time_nz": "12:00"}
TEXT = '{"id": "r", "name": "n", "race_date_nz": "2026-01-31", "start_time_nz": "12:00", "%s": %s}'
EVENT = '{"data": {"race": {"event_id": "r"}, "form": %s}}'

def nested(make):
    value = 1
    for _ in range(LEVELS):
        value = make(value)
    return value

LISTS, MAPS, NUMBERED = nested(lambda v: [v]), nested(lambda v: {"a": v}), nested(lambda v: {1: v})
JSON = "[" * LEVELS + "]" * LEVELS
ATTEMPTS = {
    "a mapping of lists": lambda: pack_request(RACE | {"x": LISTS}, NOW, None),
    "a mapping of maps": lambda: pack_request(RACE | {"x": MAPS}, NOW, None),
    "a mapping with numbers as keys": lambda: pack_request(RACE | {"x": NUMBERED}, NOW, None),
    "a parsed mapping": lambda: RaceData.parse(RACE | {"x": LISTS}),
    "a race as JSON": lambda: RaceData.parse(TEXT % ("x", JSON)),
    "a race as JSON bytes": lambda: RaceData.parse((TEXT % ("pools", JSON)).encode()),
    "a response as JSON": lambda: RaceData.parse(EVENT % JSON),
    "a JSON list": lambda: RaceData.parse(JSON),
    "previous as JSON": lambda: transform_race(RaceData.parse(RACE), polled_at=NOW, previous=JSON),
    "previous as JSON bytes": lambda: PreviousAmounts.of(JSON.encode()),
    "a result": lambda: pack_result(LISTS),
    "the name of a race in an error": lambda: race_id(JSON) or pack_result(LISTS),
}

def attempt(name, act):
    try:
        act()
    except ValueError as error:
        print(name, "is nested more than 64 levels deep" in str(error))

threading.stack_size(64 * 1024)
for name, act in ATTEMPTS.items():
    thread = threading.Thread(target=attempt, args=(name, act))
    thread.start()
    thread.join()
print(len(ATTEMPTS), "attempts", flush=True)
import os
os._exit(0)  # to free the values level by level would take a while
"""


@pytest.fixture(scope="module")
def told() -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_deep_values_are_refused_in_a_thread_with_a_small_stack(told: list[str]) -> None:
    *attempts, total = told

    assert total == f"{len(attempts)} attempts"
    assert [line for line in attempts if not line.endswith(" True")] == []
