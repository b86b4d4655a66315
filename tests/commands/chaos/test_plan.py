"""The same seed gives the same faults and load, and no two faults overlap that must not."""

from collections import Counter
from itertools import pairwise

import pytest

from racepool.commands.chaos.kinds import ABSENT_SUPERVISORD, KINDS, Kind, UnknownKindError, chosen
from racepool.commands.chaos.lab_races import LIGHT, RACES, body, harmful, lab_race
from racepool.commands.chaos.plan import BURST, BURST_LEAD_S, STEADY_CLIENTS, Fault, Plan
from racepool.races.race import RaceData

ALL = tuple(KINDS.values())


def plan(seed: int = 1, seconds: float = 120.0, kinds: tuple[Kind, ...] = ALL, every_s: float = 0.5) -> Plan:
    return Plan(seed, seconds, 40.0, kinds, every_s, 3)


def test_same_seed_gives_the_same_schedule() -> None:
    assert plan(7).faults() == plan(7).faults()
    assert list(plan(7).load(0)) == list(plan(7).load(0))
    assert plan(7).faults() != plan(8).faults()
    assert list(plan(7).load(0)) != list(plan(8).load(0))
    assert list(plan(7).load(0)) != list(plan(7).load(1))


def test_plan_survives_the_way_to_a_client() -> None:
    assert Plan.from_wire(plan().to_wire()) == plan()


def test_faults_come_in_order_and_end_within_the_load() -> None:
    faults = plan().faults()

    assert [fault.number for fault in faults] == list(range(len(faults)))
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(faults))
    assert all(0 < fault.at_s + fault.lasts_s <= 120 for fault in faults)
    assert all(fault.kind.lasts_s[0] <= fault.lasts_s <= fault.kind.lasts_s[1] for fault in faults)


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_has_its_turn(seed: int) -> None:
    assert {fault.kind for fault in plan(seed, 400.0).faults()} == set(ALL)


def test_faults_are_as_far_apart_as_asked_for_where_nothing_forbids_it() -> None:
    faults = plan(seconds=2_000.0, kinds=(KINDS["worker-kill"],), every_s=1.5).faults()

    assert 1.3 < 2_000 / len(faults) < 1.7


def test_what_a_fault_has_taken_is_left_to_it_until_the_pool_is_whole() -> None:
    faults = plan(seconds=600.0).faults()
    for later in faults:
        going_on = [each for each in faults if each.number < later.number and each.calm_at_s > later.at_s]

        assert not any(each.kind.takes & later.kind.avoids for each in going_on)
        assert not any(later.kind.takes & each.kind.avoids for each in going_on)


def test_calm_fault_comes_in_no_burst() -> None:
    def submissions(kind: str) -> int:
        return len(list(plan(kinds=(KINDS[kind],), every_s=10.0).load(1)))

    calm = submissions("worker-freeze-calm")
    assert calm == pytest.approx(120 * 40 / STEADY_CLIENTS, rel=0.1)
    assert submissions("worker-freeze") - calm >= 5 * BURST


def test_no_worker_is_frozen_twice_at_once() -> None:
    faults = [each for each in plan(seconds=600.0).faults() if each.kind.hits_one_worker]
    overlaps = [
        (one, other)
        for one in faults
        for other in faults
        if one.number < other.number and other.at_s < one.calm_at_s and one.target == other.target
    ]

    assert faults
    assert overlaps == []


def test_nothing_but_clients_is_harmed_while_supervisord_is_gone() -> None:
    may_go_on = {name for name, kind in KINDS.items() if ABSENT_SUPERVISORD not in kind.avoids}

    assert may_go_on == set()


def test_too_short_a_load_has_no_fault_that_lasts_longer() -> None:
    assert plan(seconds=5.0, kinds=(KINDS["worker-freeze"],)).faults() == []


def test_load_has_its_rate_over_all_clients_together() -> None:
    counts = [len(list(plan(seconds=1_000.0, kinds=()).load(client))) for client in range(STEADY_CLIENTS)]

    assert 36_000 < sum(counts) < 44_000


def test_first_client_alone_carries_each_fault_that_travels_in_a_race() -> None:
    travelling = [fault for fault in plan().faults() if fault.kind.verb]
    carried = [each for each in plan().load(0) if each.fault is not None]

    assert [each.fault for each in carried] == [fault.number for fault in travelling]
    assert [each.at_s for each in carried] == [fault.at_s - BURST_LEAD_S for fault in travelling]
    assert all(each.fault is None for each in plan().load(1))


@pytest.mark.parametrize("client", range(STEADY_CLIENTS))
def test_each_fault_meets_a_burst_of_each_client(client: int) -> None:
    instants = Counter(each.at_s for each in plan().load(client) if each.fault is None and each.harm is None)

    met = {(fault.kind.is_calm, instants[fault.at_s - BURST_LEAD_S]) for fault in plan().faults()}
    assert met == {(False, BURST), (True, 0)}


def test_burst_is_submitted_at_once() -> None:
    burst = list(plan().burst(3, 50, 0.1))

    assert len(burst) == 50
    assert {(each.at_s, each.harm, each.fault) for each in burst} == {(0.0, ("sleep", "0.1", 3), None)}


@pytest.mark.parametrize("index", [0, LIGHT - 1, LIGHT, RACES - 1])
def test_each_race_is_valid_and_of_its_size(index: int) -> None:
    race = lab_race(5, index)
    size = len(body(race))

    assert RaceData.parse(body(race)).id == f"race-{index}"
    assert lab_race(5, index) == race
    assert (45_000 < size < 440_000) if index >= LIGHT else size < 20_000


def test_harmful_race_is_the_same_but_for_its_name() -> None:
    race = lab_race(5, 0)

    assert harmful(race, "hold-gil", "2.5", 7) == race | {"name": "chaos:hold-gil:2.5:7:Lab Stakes 0"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("worker-kill", ["worker-kill"]),
        (" worker-kill, broker-kill,worker-kill ", ["worker-kill", "broker-kill"]),
        ("all", list(KINDS)),
        ("all,-poison", [name for name in KINDS if name != "poison"]),
        ("-poison", [name for name in KINDS if name != "poison"]),
    ],
)
def test_kinds_are_chosen_by_name(names: str, expected: list[str]) -> None:
    assert [kind.name for kind in chosen(names)] == expected


@pytest.mark.parametrize("names", ["worker-kil", "", ",", "all,-all", "worker-kill,-nobody"])
def test_unknown_kind_is_refused_with_those_that_there_are(names: str) -> None:
    with pytest.raises(UnknownKindError, match=r"there are worker-kill, .*, and all"):
        chosen(names)


def test_instant_of_calm_is_after_all_that_the_fault_needs() -> None:
    fault = Fault(0, 10.0, KINDS["worker-freeze"], 0, 4.0)

    assert fault.calm_at_s == 10.0 + 4.0 + KINDS["worker-freeze"].rest_s


@pytest.mark.parametrize("kind", ["alarm-handler", "broker-kill-alarm"])
def test_races_that_leave_something_come_just_before_the_race_that_hangs(kind: str) -> None:
    load = list(plan(kinds=(KINDS[kind],), every_s=10.0).load(0))
    first = next(index for index, each in enumerate(load) if each.fault is not None)

    assert [each.harm for each in load[first - 9 : first]] == [(KINDS[kind].before, "", 0)] * 9
    assert {each.at_s for each in load[first - 9 : first + 1]} == {load[first].at_s}


def test_other_kinds_come_without_such_races() -> None:
    assert all(each.harm is None for each in plan(kinds=(KINDS["hang"],)).load(0))
