"""One picture of the pool, for any width and height. Knows no terminal and no clock."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from racepool.commands.display import STATE_STYLES, event_line, mebibytes, seconds
from racepool.commands.narrow_table import Column, NarrowTable, numbers
from racepool.commands.top.trend import SLOT_S, WINDOW_S, Latency, PoolTrend, Slot
from racepool.protocol.stats import PoolStats, WorkerStats
from racepool.protocol.visible import visible

BARS = "▁▂▃▄▅▆▇█"
SHORT_ID = 8  # digits of a task's id, as in `racepool dead list`
WIDE = 110  # columns: a task's whole id fits
LABEL, NUMBER = 11, 9
STATE = 2  # the index of its column
EVENT_STYLES = {
    "worker_lost": "red",
    "task_given_up": "bold red",
    "worker_killed": "red",
    "broker_restarted": "bold yellow",
    "task_requeued": "yellow",
}
KEPT_WORKERS = 5  # lines of workers that stay before latencies and gauges are shown
HELP = "q quit   p pause   s sort"


class Order(NamedTuple):
    """An order of the workers."""

    name: str
    key: Callable[[WorkerStats, Mapping[str, int]], tuple[object, ...]]


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that puts worker-2 before worker-10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


ORDERS = (
    Order("name", lambda worker, _: (_natural(worker.name),)),
    Order("longest task", lambda worker, _: (-(worker.busy_for_s or 0), _natural(worker.name))),
    Order("memory", lambda worker, _: (-(worker.rss_bytes or 0), _natural(worker.name))),
    Order("done", lambda worker, _: (-worker.tasks_completed, _natural(worker.name))),
    Order("restarts", lambda worker, restarts: (-restarts[worker.name], _natural(worker.name))),
)


@dataclass(frozen=True, slots=True)
class View:
    """What the screen shows.

    Attributes:
        now: by the clock of `trend`; `wall` is the wall-clock time of the same instant.
        dead_tasks: how many are kept; None if that is not known.
        remedy: what a person can check if no broker answers.
    """

    trend: PoolTrend
    now: float
    wall: datetime
    endpoint: str
    remedy: str
    dead_tasks: int | None
    order: Order = ORDERS[0]
    is_paused: bool = False


def frame(view: View, width: int, height: int) -> RenderableType:
    """As many lines as the window has; the last one names the keys.

    In a low window the workers stay, and the latencies disappear first.
    """
    lines = _lines(view, width, max(height - 1, 0))
    if view.trend.silent_since is not None:
        for line in lines[2:]:
            line.stylize("dim")
    lines += [Text()] * (height - 1 - len(lines))
    foot = Text(f" {HELP}: {view.order.name}", style="reverse", end="")
    foot.pad_right(max(width - len(foot), 0))
    return Group(*(_cut(line, width) for line in [*lines, foot]))


def _lines(view: View, width: int, room: int) -> list[Text]:
    stats = view.trend.stats
    head = [_title(view, width), _state(view)]
    if stats is None:
        return [*head, *_advice(view)][:room]
    head.append(_counters(stats, view.dead_tasks))
    parts = [[Text(), *_gauges(view, stats, width)], _latencies(view)]
    least = min(len(stats.workers), KEPT_WORKERS) + 2
    while parts and len(head) + sum(map(len, parts)) + least > room:
        parts.pop()
    head += [line for part in parts for line in part]
    workers = _workers(view, stats, width, max(room - len(head), 0))
    return [*head, *workers, *_events(view, room - len(head) - len(workers))][:room]


def snapshot(view: View, width: int) -> RenderableType:
    """Everything, for a file or a pipe."""
    stats = view.trend.stats
    if stats is None:
        return Group(_state(view), *_advice(view))
    rows = _workers(view, stats, width, len(stats.workers) + stats.expected_workers + 2)
    head = [_title(view, width), _state(view), _counters(stats, view.dead_tasks), Text()]
    lines = [*head, *_gauges(view, stats, 0), *_latencies(view), *rows, *_events(view, len(view.trend.events) + 2)]
    return Group(*(_stripped(line) for line in lines))


def _stripped(line: Text) -> Text:
    line = line.copy()
    line.rstrip()
    return line


def _cut(line: Text, width: int) -> Text:
    """Ends after a whole word: half a number would be another number."""
    line = line.copy()
    line.no_wrap = True
    if line.cell_len > width:
        words = line.plain[: max(width - 1, 0)].rpartition(" ")[0].rstrip()
        if words:
            line.right_crop(len(line) - len(words))
            line.append(" …")
        line.truncate(width, overflow="ellipsis")
    return line


def _title(view: View, width: int) -> Text:
    stats = view.trend.stats
    title = Text(" racepool", style="bold")
    if stats is not None:
        broker = stats.broker
        up_s = broker.uptime_s + (view.now - view.trend.heard_at if view.trend.silent_since is None else 0)
        facts = f"pid {broker.pid}, up {timedelta(seconds=int(up_s))}, {mebibytes(broker.rss_bytes)}"
        title.append(f"  broker {visible(broker.version)}, {facts}, clients {stats.clients}", style="not bold")
    clock = f"{'PAUSED  ' if view.is_paused else ''}{view.wall.astimezone():%H:%M:%S} "
    title = _cut(title, max(width - len(clock) - 1, 0))
    title.pad_right(max(width - len(clock) - len(title), 1))
    return title.append(clock, style="bold yellow" if view.is_paused else "dim")


def _state(view: View) -> Text:
    """The state of the pool in words."""
    trend, stats = view.trend, view.trend.stats
    if stats is None:
        if trend.silent_since is None:
            return Text(" Asking the broker …", style="dim")
        return Text(" NO BROKER has answered yet; still asking", style="bold red")
    if trend.silent_since is not None:
        away_s = view.now - trend.heard_at
        since = view.wall.astimezone() - timedelta(seconds=away_s)
        words = f" NO BROKER answers since {since:%H:%M:%S} ({timedelta(seconds=int(away_s))} ago)"
        return Text(f"{words}; still asking. Its last stats:", style="bold red")
    there, expected = stats.total_workers, stats.expected_workers
    if stats.degraded:
        names = ", ".join(map(visible, sorted(trend.missing(), key=_natural)))
        lacks = f"; {names} {'is' if names and ',' not in names else 'are'} away" if names else ""
        return Text(f" DEGRADED: {there} of {expected} workers are there{lacks}", style="bold yellow")
    if there > expected:
        return Text(f" OK: {there} workers are there, more than the {expected} expected", style="green")
    return Text(f" OK: all {expected} workers are there, {stats.active_workers} busy", style="green")


def _advice(view: View) -> list[Text]:
    """Which address we ask, and what a person can check."""
    if view.trend.silent_since is None:
        return []
    return [Text(f" {visible(view.endpoint)}"), Text(f" {visible(view.remedy)}")]


def _counters(stats: PoolStats, dead_tasks: int | None) -> Text:
    """The counters since the broker's start: `completed`, and all others that are not 0."""
    counts = [f"{name.replace('_', ' ')} {count:,}" for name, count in stats.counters if count or name == "completed"]
    line = Text(f" {', '.join(counts)}", style="dim")
    if dead_tasks:
        line = Text(f" dead tasks {dead_tasks} (racepool dead list)", style="yellow").append_text(
            Text(",").append_text(line)
        )
    return line


def _gauges(view: View, stats: PoolStats, width: int) -> list[Text]:
    """Throughput, waiting tasks and tasks in flight, each with a sparkline of the last minutes."""
    trend = view.trend
    room = max(width - LABEL - 2 * NUMBER - 3, 0)
    oldest = stats.oldest_queued_s
    rate = trend.throughput()
    rows: list[tuple[str, str, Callable[[Slot], float | None]]] = [
        ("tasks/s", "…" if rate is None else f"{rate:,.1f}", Slot.throughput),
        ("waiting", f"{stats.queue_depth:,}", lambda slot: slot.queue_depth),
        ("in flight", f"{stats.in_flight:,}", lambda slot: slot.in_flight),
    ]
    span = timedelta(seconds=int(room * SLOT_S))
    caption = f"the last {span}" if room > len("the last 0:00:00") else ""
    title = Text(f" {'':{LABEL}}{'now':>{NUMBER}}{'most':>{NUMBER}}  {caption}", style="dim")
    lines = [title if room else Text(f" {'':{LABEL}}{'now':>{NUMBER}}", style="dim")]
    for label, value, of_slot in rows:
        line = Text(f" {label:<{LABEL}}").append(f"{value:>{NUMBER}}", style="bold")
        if room:
            bars = trend.bars(of_slot, room, view.now)
            most = max((bar for bar in bars if bar is not None), default=0)
            line.append(f"{most:>{NUMBER},.0f}  ", style="dim").append_text(_sparkline(bars, most))
        lines.append(line)
    waits = "no task waits" if oldest is None else f"the oldest waits for {seconds(oldest)}"
    held = f"; {stats.held_by_clients:,} are held by clients" if stats.held_by_clients else ""
    lines.append(Text(f" {'':{LABEL}}{waits}{held}", style="dim" if oldest is None else ""))
    return lines


def _sparkline(bars: Sequence[float | None], most: float) -> Text:
    line = Text()
    for bar in bars:
        if bar is None:
            line.append(" ")
        elif bar <= 0:
            line.append(BARS[0], style="dim")
        else:
            line.append(BARS[min(int(bar / most * len(BARS)), len(BARS) - 1)], style="cyan")
    return line


def _latencies(view: View) -> list[Text]:
    trend = view.trend
    head = "".join(f"{name:>{NUMBER}}" for name in ("p50", "p90", "p99", "count"))
    title = Text(f" {'ms':<{LABEL}}{head}  the last {WINDOW_S:g} s", style="dim")
    return [title, _latency("waited", trend.queue_wait()), _latency("ran", trend.run())]


def _latency(label: str, latency: Latency) -> Text:
    values = ("-" if value is None else f"{value:,.1f}" for value in (latency.p50, latency.p90, latency.p99))
    return Text(f" {label:<{LABEL}}" + "".join(f"{value:>{NUMBER}}" for value in (*values, f"{latency.count:,}")))


def _workers(view: View, stats: PoolStats, width: int, room: int) -> list[Text]:
    """A heading and a line for each worker. If there is no room for all, the last line says how many are left out."""
    restarts = view.trend.restarts
    cells: list[tuple[Sequence[str], str]] = [
        (_worker_cells(worker, restarts[worker.name], is_wide=width >= WIDE), STATE_STYLES[worker.state])
        for worker in sorted(stats.workers, key=lambda worker: view.order.key(worker, restarts))
    ]
    away = [
        ((name, "", "away", "", seconds(view.now - at), "", "", str(restarts[name]), "", ""), "red")
        for name, at in sorted(view.trend.missing().items(), key=lambda item: _natural(item[0]))
    ]
    cells = away + cells
    shown = cells if len(cells) + 2 <= room else cells[: max(room - 3, 0)]
    lines = [Text(), *_table(shown, width)]
    if len(shown) < len(cells):
        lines.append(Text(f" and {len(cells) - len(shown)} more: enlarge the window, or sort by another column"))
    return lines


COLUMNS = (
    Column("Worker", least=8, floor=8), numbers("Pid", 5, floor=6), Column("State", floor=5),
    Column("Task", least=SHORT_ID, floor=SHORT_ID, optional=2), numbers("For", 1, floor=5), numbers("Done", floor=5),
    numbers("Failed", 3), numbers("Restarts"), numbers("Memory", 4, floor=7), numbers("Heartbeat", 6),
)  # fmt: skip


def _worker_cells(worker: WorkerStats, restarts: int, *, is_wide: bool) -> tuple[str, ...]:
    task = worker.task_id or ""
    return (
        worker.name,
        str(worker.pid),
        worker.state,
        task if is_wide else task[:SHORT_ID],
        seconds(worker.busy_for_s),
        f"{worker.tasks_completed:,}",
        f"{worker.tasks_failed:,}",
        str(restarts),
        mebibytes(worker.rss_bytes),
        seconds(worker.last_heartbeat_age_s),
    )


def _table(rows: Sequence[tuple[Sequence[str], str]], width: int) -> list[Text]:
    table = NarrowTable(COLUMNS, "tight")
    for cells, style in rows:
        table.add(*cells[:STATE], Text(cells[STATE], style=style), *cells[STATE + 1 :])
    return [Text(" ").append_text(line) for line in table.lines(width - 1)]


def _events(view: View, room: int) -> list[Text]:
    """The latest event comes first, so that the oldest ones are cut off."""
    events = list(view.trend.events)[::-1][: max(room - 2, 0)]
    if not events:
        return []
    lines = [Text(f" {event_line(event)}", style=EVENT_STYLES.get(event.event, "")) for event in events]
    return [Text(), Text(" Events, the latest first", style="bold"), *lines]
