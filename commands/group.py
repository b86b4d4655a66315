"""The command `racepool`: the list of its verbs. A verb's module is imported when the verb is used."""

from importlib import import_module
from typing import Any

import click

from racepool.protocol import VERSION
from racepool.protocol.errors import BrokerUnavailableError, PoolError, SettingsError
from racepool.protocol.exits import Exit

VERBS = {
    "broker": "programs",
    "chaos": "chaos.command",
    "config": "config",
    "dead": "dead.command",
    "doctor": "doctor.command",
    "exporter": "exporter.command",
    "keygen": "keys",
    "keys": "keys",
    "ping": "ping",
    "replay": "replay.command",
    "stats": "stats",
    "top": "top.command",
    "transform": "transform",
    "up": "up",
    "wait": "wait",
    "worker": "programs",
}
"""The module of each verb, in racepool.commands; it defines a click command with the verb's name."""


class VerbGroup(click.Group):
    """Imports a verb's module when the verb is used; turns a PoolError into one line and the documented exit code."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002  # as click has it
        """The names of all verbs."""
        return sorted(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:  # noqa: ARG002  # as click has it
        """The verb with this name; None if there is none.

        Raises:
            ImportError: the verb's module cannot be imported. No verb's module is to fail without an extra.
        """
        if name not in VERBS:
            return None
        verb: click.Command = getattr(import_module(f"racepool.commands.{VERBS[name]}"), name)
        return verb

    def invoke(self, context: click.Context) -> Any:  # noqa: ANN401  # as click has it
        """Runs the verb."""
        try:
            return super().invoke(context)
        except PoolError as error:
            click.echo(f"racepool: {error}", err=True)
            context.exit(_exit_code(error))


def _exit_code(error: PoolError) -> int:
    match error:
        case SettingsError():
            return Exit.BAD_SETTINGS
        case BrokerUnavailableError():
            return Exit.NO_BROKER
        case _:
            return Exit.FAILURE


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "-V", "--version", prog_name="racepool")
def main() -> None:
    """A worker pool that turns polls of the NZ tote into money-flow records, off your event loop.

    Settings come from RACEPOOL_... variables; `racepool config` shows them all.
    """
