"""The real broker, between a few fake peers."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.scale import broker_process, section
from benchmarks.scale.measurement import Cost, Scale, Weight, cases, load_scale, measure, steps

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def scale() -> Scale:
    """Measured once, with few tasks."""
    scale = Scale(
        at=datetime.now(UTC),
        machine={},
        scale=0.05,
        costs=[
            Cost(axis="queued", queued=50, workers=2, clients=1),
            Cost(axis="workers", queued=0, workers=5, clients=1),
            Cost(axis="clients", queued=10, workers=2, clients=4),
        ],
        weights=[Weight(body_bytes=100, queued=2_000)],
    )
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_process, "GIVE_BACK_S", 0.0)
        measure(scale, 1, told.append)
    assert len(told) == steps(scale, 1)
    return scale


def test_every_task_costs_the_broker_something(scale: Scale) -> None:
    assert [len(cost.us) for cost in scale.costs] == [1, 1, 1]
    assert all(0 < cost.us[0] < 10_000 for cost in scale.costs)


def test_queued_task_weighs_more_than_its_body(scale: Scale) -> None:
    assert 100 < scale.queued_task_bytes()[0] < 5_000


def test_section_has_a_row_for_each_case_and_a_picture(scale: Scale, tmp_path: Path) -> None:
    text = section.text(scale)

    assert "| 50 queued, 2 workers, 1 client |" in text
    assert "| 10 queued, 2 workers, 4 clients |" in text
    assert "| 2,000 bodies of 100 bytes |" in text
    assert (tmp_path / section.draw(scale, tmp_path)).stat().st_size > 10_000


def test_measured_scale_is_read_as_it_was_written(scale: Scale, tmp_path: Path) -> None:
    scale.save(tmp_path)

    assert load_scale(tmp_path) == scale
    assert load_scale(tmp_path / "elsewhere") is None


def test_cases_shrink_with_the_scale_but_for_the_peers() -> None:
    full, tenth = cases(1), cases(0.1)

    assert [cost.queued for cost in full.costs[:4]] == [0, 1_000, 10_000, 100_000]
    assert [cost.queued for cost in tenth.costs[:4]] == [0, 100, 1_000, 10_000]
    assert [cost.workers for cost in tenth.costs] == [cost.workers for cost in full.costs]
