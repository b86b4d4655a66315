"""The command `racepool`: the list of its verbs. A verb's module is imported when the verb is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from racepool.commands.output import tell
from racepool.protocol import VERSION
from racepool.protocol.errors import BrokerUnavailableError, PoolError, SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.visible import visible

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

        A verb whose module cannot be imported is listed, and raises the error when it is used. No verb's module is to
        fail without an extra.
        """
        if name not in VERBS:
            return None
        try:
            verb: click.Command = getattr(import_module(f"racepool.commands.{VERBS[name]}"), name)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one verb, the others can be used
            return _broken(name, error)
        return verb

    def make_context(self, *args: Any, **options: Any) -> click.Context:  # noqa: ANN401  # as click has it
        """Reads the options before the verb."""
        with _arguments_escaped():
            return super().make_context(*args, **options)

    def invoke(self, context: click.Context) -> Any:  # noqa: ANN401  # as click has it
        """Runs the verb."""
        try:
            with _arguments_escaped():
                return super().invoke(context)
        except PoolError as error:
            tell(error)
            context.exit(_exit_code(error))


def _broken(name: str, error: Exception) -> click.Command:
    def fail(**_: object) -> None:
        raise error

    arguments = click.Argument(["arguments"], nargs=-1)
    help_text = f"Cannot be imported: {visible(str(error))}."
    return click.Command(
        name, callback=fail, params=[arguments], help=help_text, short_help=help_text,
        context_settings={"ignore_unknown_options": True},
    )  # fmt: skip


@contextmanager
def _arguments_escaped() -> Iterator[None]:
    """Click's messages repeat what the user gave."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = visible(error.message)  # final only for type checkers
        raise


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
