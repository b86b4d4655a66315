"""`racepool up`: broker and workers under supervisord, in the foreground."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import click

from racepool.commands.exporter.command import require_extra
from racepool.commands.output import OutputLostError, say, tell
from racepool.protocol.errors import SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.keys import Role, broker_keys, peer_keys
from racepool.protocol.processes import lock_holder
from racepool.protocol.settings import Settings, variable
from racepool.supervision.configuration import STDOUT, child_environment, supervisord_command, write_configuration
from racepool.supervision.run_directory import hold


@click.command()
@click.option("--workers", type=int, help="How many worker processes. [default: RACEPOOL_WORKERS, else 3]")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The run directory. [default: RACEPOOL_DIR]")
@click.option("--stdout", "to_stdout", is_flag=True, help="Log to standard output, not to files; for containers.")
@click.option("--exporter", "with_exporter", is_flag=True, help="Run `racepool exporter` beside them.")
@click.pass_context
def up(
    context: click.Context, *, workers: int | None, directory: Path | None, to_stdout: bool, with_exporter: bool
) -> None:
    """Run broker and workers under supervisord, in the foreground; Ctrl-C stops them all."""
    if to_stdout:
        _refuse_output_that_cannot_be_opened()
    if with_exporter:
        require_extra()
    given = {"workers": workers, "dir": directory and directory.absolute()}
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    broker_keys(settings)  # raises here what the programs would only log, at each restart
    peer_keys(settings, Role.WORKER, settings.backend, settings.heartbeat_endpoint)
    peer_keys(settings, Role.CLIENT, settings.stats_endpoint)  # for the watchdog
    for endpoint in settings.endpoints():
        settings.guard(endpoint)
    holder = _lock_holder(settings.private_dir() / "broker.lock")
    if holder is not None:
        who = f"pid {holder}" if holder else "not visible from here"
        tell(f"another broker ({who}) runs in {settings.dir}; stop it, or set --dir")
        context.exit(Exit.LOCK_TAKEN)
    try:
        lock = hold(settings.dir)
    except OSError as error:
        raise SettingsError(f"{variable('dir')}={settings.dir}: cannot be locked ({error.strerror})") from None
    if lock is None:
        tell(f"another `racepool up` runs in {settings.dir}; stop it, or set --dir")
        context.exit(Exit.LOCK_TAKEN)
    os.set_inheritable(lock, True)  # supervisord keeps it until it ends
    os.umask(0o077)  # so that logs and sockets are for this user alone
    configuration = write_configuration(settings, to_stdout=to_stdout, exporter=with_exporter)
    _say_what_runs(settings, to_stdout=to_stdout)
    command = supervisord_command(configuration)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a Ctrl-C waits until supervisord can take it
    os.execve(command[0], command, child_environment(settings))  # noqa: S606  # our own interpreter and file


def _say_what_runs(settings: Settings, *, to_stdout: bool) -> None:
    where = "here" if to_stdout else f"in {settings.dir}/log"
    lines = (
        f"a broker and {settings.workers} workers in {settings.dir}, logs {where}",
        "Ctrl-C stops them; `racepool stats --watch` in another terminal shows them at work",
    )
    with suppress(OutputLostError):  # a pool runs also where nobody reads this
        for line in lines:
            if to_stdout:
                tell(line)
            else:
                say(f"racepool: {line}")


def _refuse_output_that_cannot_be_opened() -> None:
    """Refuses a standard output that is a socket: supervisord opens logs by their path, and a socket has none."""
    try:
        os.close(os.open(STDOUT, os.O_WRONLY | os.O_NOCTTY))
    except OSError as error:
        raise click.UsageError(
            f"--stdout: standard output cannot be opened by supervisord ({error.strerror}): it is a socket, as that of "
            "systemd's journal is, or another user's; leave --stdout out, and the logs are files in the run directory"
        ) from None


def _lock_holder(path: Path) -> int | None:
    """The pid of the process that holds the broker's lock; 0 if it is not visible here; None if nobody holds it."""
    try:
        with path.open("rb") as file:
            return lock_holder(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; choose another run directory") from None
