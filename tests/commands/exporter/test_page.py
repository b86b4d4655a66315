import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from racepool.commands.dead.tasks import DeadTasks
from racepool.commands.exporter import page
from racepool.commands.exporter.chart_history import COLUMNS, ChartHistory
from racepool.commands.exporter.chronicle import Chronicle
from racepool.commands.exporter.page import moment, verdict
from racepool.commands.exporter.server import FILES, STATIC
from racepool.protocol.stats import Event, FailedStart, PoolStats
from tests.commands.exporter.building import NOON, event, pool_stats
from tests.commands.stats import broker, pool, worker
from tests.hostile import HOSTILE

AA = 4.5  # WCAG 2.1, 1.4.3


def told(stats: PoolStats | None, dead: DeadTasks | str | None = None) -> dict[str, object]:
    chronicle = Chronicle()
    if stats is None:
        chronicle.on_silence("nobody there", NOON)
    else:
        chronicle.on_answer(stats, NOON)
    point = ChartHistory().record(NOON.timestamp(), stats)
    facts: dict[str, object] = orjson.loads(orjson.dumps(moment(NOON, stats, chronicle, dead, point)))
    return facts


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (pool_stats(), ("ok", "All workers are ready")),
        (None, ("down", "The broker does not answer")),
        (pool_stats(workers=[]), ("down", "No worker is ready")),
        (
            pool_stats(workers=[], failed_starts=[FailedStart(worker="w", reason="no module", age_s=1.0)]),
            ("down", "No worker is ready: w cannot start: no module"),
        ),
        (pool_stats(workers=pool_stats().model_dump()["workers"][:2]), ("warning", "2 of 3 workers are ready")),
        (pool_stats(queue_depth=80), ("warning", "The backlog is nearly full")),
        (pool_stats(queue_depth=80, held_by_clients=1), ("ok", "All workers are ready")),
        (pool_stats(oldest_queued_s=page.OLD_S), ("warning", "Tasks have waited for a long time")),
    ],
)
def test_verdict_names_the_worst(stats: PoolStats | None, expected: tuple[str, str]) -> None:
    assert verdict(stats) == expected


def test_moment_tells_the_latest_event_first_and_no_buckets() -> None:
    facts = told(pool_stats(recent_events=[event(), event("worker_restarted", reason=None)]))

    assert [each["event"] for each in facts["events"]] == ["worker_restarted", "worker_lost"]  # type: ignore[attr-defined]
    assert "buckets" not in facts["stats"]["run_ms"]  # type: ignore[index]
    assert facts["away"] is None


def test_moment_without_a_broker_tells_since_when_and_why() -> None:
    facts = told(None)

    assert facts["away"] == {"since": NOON.timestamp(), "reason": "nobody there"}
    assert facts["stats"] is None


def test_dead_tasks_that_cannot_be_read_are_not_said_to_be_none(tmp_path: Path) -> None:
    assert told(pool_stats(), "it is closed to us")["dead"] == {
        "problem": "it is closed to us", "count": None, "unreadable": None, "tasks": []
    }  # fmt: skip
    assert told(pool_stats(), DeadTasks(tmp_path))["dead"] == {
        "problem": None,
        "count": 0,
        "unreadable": 0,
        "tasks": [],
    }
    assert told(pool_stats())["dead"] is None


def test_charts_show_what_the_history_has() -> None:
    script = (STATIC / "status.js").read_text(encoding="utf-8")
    shown = set(re.findall(r'key: "(\w+)"', script))

    assert shown
    assert shown - set(COLUMNS) == set()


def test_page_loads_nothing_from_elsewhere_and_nothing_inline() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in STATIC.iterdir()}

    assert set(sources) == {name for name, _ in FILES.values()}
    outside = {name: re.findall(r"(?:https?:)?//[\w-]+\.\w+[^\s\"']*", text) for name, text in sources.items()}
    assert {name: found for name, found in outside.items() if set(found) - {"http://www.w3.org/2000/svg"}} == {}
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", sources["index.html"]) == []
    assert re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", sources["status.js"]) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "muted", "good", "warn", "bad", "a"])
@pytest.mark.parametrize("ground", ["card", "ground"])
def test_text_can_be_read_in_either_theme(theme: str, ink: str, ground: str) -> None:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", (STATIC / "status.css").read_text(encoding="utf-8"), re.DOTALL)
    )
    colours = light if theme == "light" else dark

    assert contrast(colours[ink], colours[ground]) >= AA
    for tone in {"good", "warn", "bad"} & {ink}:
        assert contrast(colours["muted"], colours[f"{tone}-tint"]) >= AA


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_page_gets_text_from_outside_escaped(text: str) -> None:
    lost = Event(at=NOON, event="worker_lost", worker=text, task_id=text, reason=text)
    stats = pool(worker(text, task_id=text), broker=broker(version=text, epoch=text), recent_events=[lost])

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from texts(each)
        elif isinstance(value, str):
            yield value

    assert all(each.isprintable() for each in texts(told(stats, dead=text)))
