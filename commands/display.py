"""What a person sees: results and stats as tables. Knows no socket."""

import json
from datetime import timedelta
from decimal import Decimal
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.text import Text

from racepool.commands.narrow_table import Column, Look, NarrowTable, numbers
from racepool.commands.output import say_json
from racepool.protocol.stats import Distribution, Event, PoolStats
from racepool.protocol.visible import visible
from racepool.races.race_clock import PollTime, poll_time
from racepool.races.transformed_race import MoneyFlowRecord, RacePools, TransformedEntrant, TransformedRace

STATE_STYLES = {"idle": "green", "busy": "yellow", "draining": "cyan"}
MINUTES_A_DAY = 24 * 60
POOL_NAMES = ("win", "place", "quinella", "trifecta", "exacta", "first4", "multi_leg", "other")


def show_result(result: object, shape: str, screen: Console) -> None:
    """Prints a result as a table, or in the shape that `result_json` gives it."""
    if shape == "table" and isinstance(result, TransformedRace):
        screen.print(race_table(result, plain=not screen.is_terminal))
    else:
        say_json(result_json(result, shape))


def result_json(result: object, shape: str) -> str:
    """A TransformedRace, or the value of another transform, on one line (`ndjson`) or on many."""
    indent = None if shape == "ndjson" else 2
    if isinstance(result, TransformedRace):
        return result.model_dump_json(indent=indent)
    return json.dumps(result, indent=indent, default=str)


def race_table(race: TransformedRace, *, plain: bool = False) -> RenderableType:
    """One poll of one race: an entrant a line, its money, what moved since the last poll; `plain` without lines."""
    records = {record.entrant_id: record for record in race.money_flow_records}
    money = partial(numbers, short=_without_cents)
    columns = (
        numbers("No"), Column("Runner", least=12), numbers("Hold %", 1), numbers("Bet %", 2),
        money("Win $"), money("Place $"), money("Δ win $"), money("Δ place $"),
        numbers("Fixed win", 3), numbers("Tote win", 4),
    )  # fmt: skip
    table = NarrowTable(columns, look(plain=plain))
    for entrant in race.entrants:
        cells = _entrant_cells(entrant, records.get(entrant.entrant_id))
        table.add(*cells, style="dim" if entrant.is_scratched else "")
    notes = [Text(visible(_pools(race.race_pools)), style="dim")] if race.race_pools else []
    warnings = [Text(visible(f"warning: {warning}"), style="yellow") for warning in race.warnings]
    return Group(_title(race), table, *notes, *warnings, Text())


def _title(race: TransformedRace) -> Text:
    where = f"{race.meeting.name}, " if race.meeting and race.meeting.name else ""
    number = f"R{race.race.race_number} " if race.race.race_number else ""
    time = poll_time(race.race.start_time, race.transformed_at)
    facts = f"  {where}{race.race.start_time_nz}, {race.status}, {_to_start(time)}"
    return Text.assemble((visible(f"{number}{race.race_name}"), "bold"), visible(facts))


def _to_start(time: PollTime) -> str:
    minutes = time.time_to_start
    far = abs(minutes) > MINUTES_A_DAY
    span = f"{abs(minutes) / MINUTES_A_DAY:,.0f} days" if far else f"{abs(minutes):g} min"
    return f"{span} {'to' if minutes >= 0 else 'after'} the start (bucket {time.time_interval:g})"


def _entrant_cells(entrant: TransformedEntrant, record: MoneyFlowRecord | None) -> list[str]:
    scratched = " (scratched)" if entrant.is_scratched else ""
    return [
        str(entrant.runner_number),
        entrant.name + scratched,
        _number(entrant.hold_percentage),
        _number(entrant.bet_percentage),
        *_money(record),
        _number(entrant.fixed_win_odds),
        _number(entrant.pool_win_odds),
    ]


def _money(record: MoneyFlowRecord | None) -> list[str]:
    if record is None:
        return [""] * 4
    amounts = (record.win_pool_amount, record.place_pool_amount)
    return [_dollars(cents) for cents in (*amounts, record.incremental_win_amount, record.incremental_place_amount)]


def _pools(pools: RacePools) -> str:
    totals = ((name, int(getattr(pools, f"{name}_pool_total"))) for name in POOL_NAMES)
    shown = ", ".join(f"{name.replace('_', ' ')} {_dollars(cents)}" for name, cents in totals if cents)
    return f"pools: {shown}; total {_dollars(pools.total_race_pool)} {pools.currency}"


def stats_table(stats: PoolStats, *, plain: bool = False) -> RenderableType:
    """The broker's stats at a glance; `plain` without lines."""
    state = Text("DEGRADED", style="bold red") if stats.degraded else Text("ok", style="green")
    head = Text.assemble(
        "pool ",
        state,
        f": {stats.total_workers} of {stats.expected_workers} workers, {stats.active_workers} busy, "
        f"{stats.in_flight} in flight, {stats.queue_depth} waiting ({stats.held_by_clients} held by clients), "
        f"{stats.clients} clients",
        f", the oldest task waits for {seconds(stats.oldest_queued_s)}" if stats.oldest_queued_s is not None else "",
    )
    counters = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in stats.counters if count) or "none yet"
    broker = stats.broker
    foot = Text(
        f"counters: {counters}\nbroker: pid {broker.pid}, version {visible(broker.version)}, "
        f"protocol {broker.protocol_version}, up {timedelta(seconds=round(broker.uptime_s))}, "
        f"{mebibytes(broker.rss_bytes)}",
        style="dim",
    )
    events = Text("\n".join(event_line(event) for event in stats.recent_events[-5:]), style="yellow")
    absent = [Text(visible(f"{each.worker} cannot start: {each.reason}"), style="red") for each in stats.failed_starts]
    return Group(head, *absent, _worker_table(stats, plain=plain), _time_table(stats, plain=plain), foot, events)


def _worker_table(stats: PoolStats, *, plain: bool) -> NarrowTable:
    columns = (
        Column("Worker", least=10), numbers("Pid", 3), Column("State"), Column("Task", least=8, optional=2),
        numbers("Busy for", 1), numbers("Done"), numbers("Failed"), numbers("Heartbeat", 5), numbers("Memory", 4),
    )  # fmt: skip
    table = NarrowTable(columns, look(plain=plain))
    for worker in stats.workers:
        table.add(
            worker.name,
            str(worker.pid),
            Text(worker.state, style=STATE_STYLES[worker.state]),
            worker.task_id or "",
            seconds(worker.busy_for_s),
            str(worker.tasks_completed),
            str(worker.tasks_failed),
            f"{seconds(worker.last_heartbeat_age_s)} ago",
            mebibytes(worker.rss_bytes),
        )
    return table


def _time_table(stats: PoolStats, *, plain: bool) -> NarrowTable:
    columns = (
        Column("Milliseconds", least=8), numbers("p50"), numbers("p90", 2), numbers("p99"), numbers("max"),
        numbers("count", 1),
    )  # fmt: skip
    table = NarrowTable(columns, look(plain=plain))
    for name, distribution in (
        ("queue wait", stats.queue_wait_ms),
        ("run", stats.run_ms),
        ("crash detection", stats.crash_detection_ms),
    ):
        table.add(name, *_percentiles(distribution))
    return table


def event_line(event: Event) -> str:
    """An event in one line: local time, name, and the worker or task."""
    details = " ".join(part for part in (event.worker, event.task_id, event.reason) if part)
    return visible(f"{event.at.astimezone():%H:%M:%S} {event.event} {details}")


def _percentiles(distribution: Distribution) -> list[str]:
    figures = (distribution.p50, distribution.p90, distribution.p99, distribution.max)
    return [*("" if figure is None else f"{figure:.1f}" for figure in figures), str(distribution.count)]


def look(*, plain: bool) -> Look:
    """Of a table: with lines on a terminal, without them where a program reads it."""
    return "plain" if plain else "lines"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _dollars(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def _without_cents(dollars: str) -> str:
    return f"{Decimal(dollars.replace(',', '')):,.0f}" if dollars else ""


def seconds(value: float | None) -> str:
    """A duration; nothing where there is none."""
    return "" if value is None else f"{value:.1f} s"


def mebibytes(value: int | None) -> str:
    """A size in memory; nothing where it is not known."""
    return "" if value is None else f"{value / 2**20:.0f} MiB"
