from pathlib import Path

from benchmarks.measured import load_measured
from tests.benchmarks.building import measured


def test_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = measured(throughput__raw={"racepool": [1.5, 2.5]})

    run.save(tmp_path)

    assert load_measured(tmp_path) == run


def test_folder_without_a_run_has_none(tmp_path: Path) -> None:
    assert load_measured(tmp_path) is None


def test_contender_that_failed_is_compared_with_nothing() -> None:
    run = measured(throughput__raw={"racepool": [1.5], "ppe": [2.5]})

    run.forget("racepool")

    assert run.figures == {"throughput, raw": {"ppe": [2.5]}}
    assert run.cpu == {"raw": {}}
