import pytest

from racepool.broker.resource_watch import GROWTH_BYTES, MemoryLimitError, ResourceWatch
from tests.broker.building import told

MIB = 2**20


def watch(memory_limit: int = 0, file_limit: int = 1_000, workers: int = 3) -> ResourceWatch:
    return ResourceWatch(memory_limit, file_limit, workers, 60 * MIB)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_at_its_limit_is_allowed() -> None:
    resources = watch(memory_limit=100 * MIB)

    assert not resources.is_over(100 * MIB)
    resources.require_memory(100 * MIB)


def test_memory_above_its_limit_ends_the_broker_with_both_numbers() -> None:
    resources = watch(memory_limit=100 * MIB)

    assert resources.is_over(100 * MIB + 1)
    with pytest.raises(
        MemoryLimitError, match=r"^104857601 bytes of memory, RACEPOOL_BROKER_MEMORY_LIMIT is 104857600"
    ):
        resources.require_memory(100 * MIB + 1)


def test_no_limit_is_never_reached() -> None:
    watch(memory_limit=0).require_memory(2**50)


def test_growth_is_measured_from_the_least_that_was_ever_used() -> None:
    resources = watch()

    grown = [
        resources.has_grown(size) for size in (60 * MIB, 50 * MIB, 50 * MIB + GROWTH_BYTES, 51 * MIB + GROWTH_BYTES)
    ]

    assert grown == [False, False, False, True]
    assert resources.has_grown(51 * MIB + GROWTH_BYTES)  # trimming it once may not have been enough


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "workers", "events"), [(4_169, 3, []), (4_168, 3, 1), (4_169, 4, 1), (20_000, 3, [])]
)
def test_limit_of_files_that_is_too_low_for_all_clients_is_reported(
    limit: int, workers: int, events: list[str] | int
) -> None:
    reports = watch(file_limit=limit, workers=workers).on_start()

    assert told(reports) == (["file_limit_low"] if events else [])
    assert all(report.fields["file_limit"] == limit < report.fields["enough"] for report in reports)  # type: ignore[operator]


def test_each_level_is_reported_once() -> None:
    resources = watch(file_limit=1_000)

    reports = [resources.on_files(count) for count in (499, 500, 501, 799, 800, 999, 801)]

    assert [told(each) for each in reports] == [[], ["file_limit_near"], [], [], ["file_limit_near"], [], []]
    assert dict(reports[4][0].fields) == {"open_files": 800, "file_limit": 1_000}


def test_both_levels_at_once_are_reported_once() -> None:
    resources = watch(file_limit=1_000)

    assert len(resources.on_files(900)) == 1
    assert resources.on_files(900) == []


@pytest.mark.parametrize(("between", "is_reported_again"), [(499, False), (451, False), (449, True), (10, True)])
def test_level_is_reported_again_only_after_a_calm(between: int, *, is_reported_again: bool) -> None:
    resources = watch(file_limit=1_000)
    resources.on_files(500)

    assert resources.on_files(between) == []

    assert bool(resources.on_files(500)) == is_reported_again
