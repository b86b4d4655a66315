"""`racepool config`: every setting, its value, and where that came from."""

import json

import click

from racepool.commands.narrow_table import Column, NarrowTable
from racepool.commands.output import say_json, screen_of_stdout, tell
from racepool.protocol.settings import Settings, variable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
def config(*, as_json: bool) -> None:
    """Show every setting, its value, and where that came from."""
    settings = Settings.load()
    rows = [
        (variable(name), getattr(settings, name), settings.origin(name), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        say_json(json.dumps({name: {"value": value, "origin": origin} for name, value, origin, _ in rows}, default=str))
    else:
        screen = screen_of_stdout()
        columns = (
            Column("Variable"),
            Column("Value", least=10, wraps=True),
            Column("From", optional=1),
            Column("Meaning", least=24, wraps=True, optional=2),
        )
        table = NarrowTable(columns, "plain")
        for name, value, origin, meaning in rows:
            shown = "" if value is None else str(value)
            table.add(name, shown, origin, meaning, style="bold" if origin != "default" else "")
        screen.print(table)
    for name in Settings.unknown_variables():
        tell(f"{name} is set but is no setting")
