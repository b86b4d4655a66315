import pytest

from broker.resource_watch import GROWTH_BYTES, MemoryLimitError, ResourceWatch
from tests.broker.building import told

MIB = 2**20


def watch(memory_limit: int = 0, file_limit: int = 1_000, workers: int = 3) -> ResourceWatch:
    return ResourceWatch(memory_limit, file_limit, workers)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_at_its_limit_is_no_offence() -> None:
    watch(memory_limit=100 * MIB).on_memory(100 * MIB)


def test_memory_above_its_limit_ends_the_broker_with_both_figures() -> None:
    with pytest.raises(
        MemoryLimitError, match=r"^104857601 bytes of memory, RACEPOOL_BROKER_MEMORY_LIMIT is 104857600"
    ):
        watch(memory_limit=100 * MIB).on_memory(100 * MIB + 1)


def test_no_limit_is_never_reached() -> None:
    watch(memory_limit=0).on_memory(2**50)


def test_memory_is_looked_at_closely_when_it_has_grown() -> None:
    resources = watch()
    assert resources.has_grown(50 * MIB)  # nothing is known yet
    resources.on_memory(50 * MIB)

    assert not resources.has_grown(50 * MIB + GROWTH_BYTES)
    assert resources.has_grown(50 * MIB + GROWTH_BYTES + 1)
    resources.on_memory(80 * MIB)
    assert not resources.has_grown(80 * MIB + GROWTH_BYTES)


def test_growth_is_measured_from_the_least_since_the_last_look() -> None:
    resources = watch()
    resources.on_memory(500 * MIB)

    assert not resources.has_grown(100 * MIB)

    assert resources.has_grown(101 * MIB + GROWTH_BYTES)


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "workers", "events"), [(4_169, 3, []), (4_168, 3, 1), (4_169, 4, 1), (20_000, 3, [])]
)
def test_limit_that_is_reached_before_that_of_clients_is_told(
    limit: int, workers: int, events: list[str] | int
) -> None:
    reports = watch(file_limit=limit, workers=workers).on_start()

    assert told(reports) == (["file_limit_low"] if events else [])
    assert all(report.fields["file_limit"] == limit < report.fields["enough"] for report in reports)  # type: ignore[operator]


def test_each_level_is_told_once() -> None:
    resources = watch(file_limit=1_000)

    reports = [resources.on_files(count) for count in (499, 500, 501, 799, 800, 999, 801)]

    assert [told(each) for each in reports] == [[], ["file_limit_near"], [], [], ["file_limit_near"], [], []]
    assert dict(reports[4][0].fields) == {"open_files": 800, "file_limit": 1_000}


def test_both_levels_at_once_are_told_once() -> None:
    resources = watch(file_limit=1_000)

    assert len(resources.on_files(900)) == 1
    assert resources.on_files(900) == []


@pytest.mark.parametrize(("between", "is_told_again"), [(499, False), (451, False), (449, True), (10, True)])
def test_level_is_told_again_after_a_calm_only(between: int, *, is_told_again: bool) -> None:
    resources = watch(file_limit=1_000)
    resources.on_files(500)

    assert resources.on_files(between) == []

    assert bool(resources.on_files(500)) == is_told_again
