"""The settings as flags of a program: `--run-timeout 5`."""

import errno
import os
from argparse import SUPPRESS, ArgumentParser
from pathlib import Path
from typing import Final, NoReturn, TypeVar, get_args

from pydantic.fields import FieldInfo

from racepool.protocol.exits import Exit
from racepool.protocol.settings import Settings
from racepool.protocol.visible import visible

EPILOG = "A flag goes before its variable: --run-timeout before RACEPOOL_RUN_TIMEOUT. An empty variable is none."
_SIGNS: Final = {Path: "PATH", int: "NUMBER", float: "SECONDS", str: "TEXT"}

S = TypeVar("S", bound=Settings)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Shows an argument escaped."""
        super().error(visible(message))

    def print_help(self, _file: object = None) -> None:
        """Prints the help. If that is impossible, one line says so, and the exit code is 1; argparse would not tell."""
        try:
            print(self.format_help(), end="", flush=True)  # noqa: T201  # to standard output, or nowhere if it is closed
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)  # takes what is still in the buffer
            is_unread = error.errno == errno.EPIPE
            words = None if is_unread else f"{self.prog}: standard output cannot be written: {error.strerror}\n"
            self.exit(Exit.FAILURE, words)


def from_command_line(kind: type[S], program: str) -> S:
    """A program's settings: its flags first, then the environment, then the defaults.

    Raises:
        SettingsError: names the variable, the value and the rule.
        SystemExit: after --help; or the flag is unknown, then with code 2.
    """
    parser = _Parser(program, epilog=EPILOG, argument_default=SUPPRESS, allow_abbrev=False)
    for name, field in kind.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=_sign(field), help=_help(field))
    return kind.load(**vars(parser.parse_args()))


def _sign(field: FieldInfo) -> str:
    """What stands for the value in the help: its kind, or the words that are allowed."""
    parts = get_args(field.annotation) or (field.annotation,)
    kind = next((sign for allowed, sign in _SIGNS.items() if allowed in parts), None)
    return kind or "|".join(word for part in parts for word in get_args(part) or [part] if isinstance(word, str))


def _help(field: FieldInfo) -> str | None:
    has_own_words = field.default_factory is not None or field.default is None
    return field.description if has_own_words else f"{field.description}; default: {field.default}"
