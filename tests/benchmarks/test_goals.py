import pytest

from benchmarks.goals import Verdict, verdicts
from benchmarks.measured import Measured
from benchmarks.report import goals_table
from tests.benchmarks.building import measured


def verdict(run: Measured, what: str, peer: str = "") -> Verdict:
    return next(each for each in verdicts(run, ()) if (each.what, each.peer) == (what, peer))


@pytest.mark.parametrize(("ours", "is_met"), [(1390, False), (1400, True), (2000, True)])
def test_throughput_is_met_from_the_limit_on(ours: float, is_met: object) -> None:
    run = measured(throughput__normalised={"racepool": [ours] * 3, "ppe": [1000] * 3})

    assert verdict(run, "throughput, normalised", "ProcessPoolExecutor").is_met is is_met


@pytest.mark.parametrize(("ours", "is_met"), [(2.9, True), (3.0, True), (3.1, False)])
def test_burst_is_met_up_to_the_limit(ours: float, is_met: object) -> None:
    run = measured(burst_p50__normalised={"racepool": [ours] * 3, "loky": [3.0] * 3})

    assert verdict(run, "burst of five, p50", "loky").is_met is is_met


def test_median_of_the_ratios_within_rounds_decides() -> None:
    run = measured(throughput__raw={"racepool": [100, 300, 160], "ppe": [100, 100, 100]})

    figure = verdict(run, "throughput, raw", "ProcessPoolExecutor").figure

    assert figure is not None
    assert figure.middle == 1.6


def test_peer_that_did_not_run_is_not_measured() -> None:
    run = measured(throughput__raw={"racepool": [100]})

    assert verdict(run, "throughput, raw", "Ray").is_met is None


def test_stall_counts_only_where_the_bare_ticker_kept_its_time() -> None:
    run = measured(bare_stall__raw={"racepool": [0.5, 9, 0.5]}, stall__raw={"racepool": [3, 80, 4]})
    what = "loop stall in 100 raw races, where a bare ticker is late by less than 2 ms"

    figure = verdict(run, what).figure

    assert figure is not None
    assert figure.middle == 3.5


def test_heaviest_queued_task_decides() -> None:
    light = verdicts(measured(), [300, 700])[-1]
    heavy = verdicts(measured(), [300, 801])[-1]

    assert (light.is_met, heavy.is_met) == (True, False)


def test_table_says_which_goals_are_met() -> None:
    run = measured(
        throughput__normalised={"racepool": [1500], "ppe": [1000]}, throughput__raw={"racepool": [1000], "ppe": [1000]}
    )

    rows = goals_table(verdicts(run, ())).splitlines()

    assert rows[2] == "| throughput, normalised, to ProcessPoolExecutor | ≥ 1.4 x | 1.50 | met |"
    assert rows[3] == "| throughput, raw, to ProcessPoolExecutor | ≥ 1.5 x | 1.00 | **not met** |"
    assert rows[4].endswith("| - | not measured |")
