"""`racepool broker` and `racepool worker`: replace this process by the program, for another supervisor than ours."""

import os
import sys

import click

PROGRAM_CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _program(name: str) -> click.Command:
    @click.pass_context
    def run(context: click.Context) -> None:
        command = [sys.executable, "-P", "-m", f"racepool.{name}", *context.args]
        os.execv(command[0], command)  # noqa: S606  # our own interpreter

    return click.Command(
        name, callback=run, context_settings=dict(PROGRAM_CONTEXT), add_help_option=False,
        help=f"Run one {name} in the foreground; `racepool {name} --help` lists its flags.",
    )  # fmt: skip


broker = _program("broker")
worker = _program("worker")
