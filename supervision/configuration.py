"""supervisord's configuration for one pool, derived from the shipped file: for `racepool up` and for local pools."""

import os
import shlex
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from configparser import RawConfigParser, SectionProxy
from dataclasses import dataclass
from io import StringIO
from math import ceil
from pathlib import Path
from uuid import uuid4

from racepool.protocol.errors import SettingsError
from racepool.protocol.settings import MAX_IPC_PATH_BYTES, Settings, variable
from racepool.supervision.orphans import MARK as POOL_MARK

LOG_MAX_BYTES = "10MB"
MARK = "; Written by racepool at each start: changes are lost.\n"
PYTHON = "SUPERVISED_PYTHON"  # the variable through which the interpreter's path, quoted, reaches the commands
GRACE_S = 5  # what a worker gets beyond the run timeout, to send its result
PROGRAMS = {"broker": "racepool.broker", "worker": "racepool.worker", "exporter": "racepool.commands.exporter"}
SHIPPED = Path(__file__).with_name("supervisord.conf")
CALLER = "SUPERVISED_FOR"  # the variable with which a local pool names its process and its folder
SOCKET = "supervisor.sock"
PREFIX = "racepool: "  # of supervisord's lines for the user, on its standard error
PIDFILE = "supervisord.pid"
LONGEST_PID = 7  # digits; supervisord binds its socket as `supervisor.sock.PID`, then renames it
STDOUT = Path("/dev/stdout")
STDERR = Path("/dev/stderr")


def supervisord_command(configuration: Path) -> list[str]:
    """The command line of a supervisord that stays in the foreground."""
    return [
        sys.executable,
        "-P",
        "-m",
        "racepool.supervision.supervisord",
        "--nodaemon",
        "--configuration",
        str(configuration),
    ]


def excess_bytes(directory: Path) -> int:
    """How many bytes this run directory's path is too long for supervisord's socket; zero or less if it fits."""
    return len(os.fsencode(directory / f"{SOCKET}.")) + LONGEST_PID - MAX_IPC_PATH_BYTES


def write_configuration(
    settings: Settings, *, owner_pid: int | None = None, to_stdout: bool = False, exporter: bool = False
) -> Path:
    """Derives supervisord's file from the shipped one, and writes it into the run directory.

    No path is in the file, because supervisord takes parts of some paths for comments or expansions. Paths are relative
    to the file, `%(here)s/...`: supervisord expands that after it has cut off comments. The interpreter's path comes
    from the environment (see `child_environment`).

    Args:
        settings: of the pool.
        owner_pid: the pool ends when this process ends; None = it does not.
        to_stdout: broker, workers and exporter log to supervisord's standard output; supervisord and the watchdog log
            to its standard error. Otherwise each has a file in the run directory.
        exporter: whether the exporter runs as well.

    Returns:
        The path of the file.

    Raises:
        SettingsError: the run directory cannot be used.
    """
    directory = _usable(settings.private_dir())
    parser = RawConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(SHIPPED.read_text(encoding="utf-8"))
    _set_supervisord(parser, is_silent=not to_stdout)
    _set_programs(parser, settings, exporter=exporter)
    if to_stdout:
        _log_to_stdout(parser)
    if owner_pid is not None:
        parser["program:owner"] = dict(parser["program:broker"]) | {
            "command": _command("racepool.supervision.owner", str(owner_pid)),
            "stdout_logfile": _logfile("owner"),
        }
    path = directory / "supervisord.conf"
    text = StringIO(MARK)
    text.seek(0, os.SEEK_END)
    parser.write(text)
    try:
        _refuse_foreign_files(directory)
        (directory / "log").mkdir(mode=0o700, exist_ok=True)
        _replace(path, text.getvalue())
    except OSError as error:
        raise SettingsError(f"{variable('dir')}={directory}: {error.strerror}; choose another, or mend that") from None
    return path


def _usable(directory: Path) -> Path:
    """The directory as supervisord will call it.

    Raises:
        SettingsError: its path has a control character, or is too long.
    """
    control = next((character for character in str(directory) if unicodedata.category(character) == "Cc"), None)
    if control is not None:
        raise SettingsError(
            f"{variable('dir')}={str(directory)!a}: its path has the control character {control!a}; choose a "
            "path without it, or another TMPDIR for a local pool"
        )
    if ".." in directory.parts:
        directory = directory.resolve()  # supervisord would take out `LINK/..`, which may be another directory
    excess = excess_bytes(directory)
    if excess > 0:
        raise SettingsError(
            f"{variable('dir')}={directory}: its path is {excess} bytes too long for supervisord's socket; choose a "
            "shorter one, or a shorter TMPDIR for a local pool"
        )
    return directory


def _refuse_foreign_files(directory: Path) -> None:
    """Refuses files that supervisord or we would overwrite or remove, and that neither of us has made."""
    ours: dict[str, Callable[[Path], bool]] = {
        SOCKET: Path.is_socket,
        PIDFILE: lambda path: path.read_bytes().strip().isdigit(),
        "supervisord.conf": lambda path: path.read_bytes().startswith(MARK.encode()),
    }
    for name, is_ours in ours.items():
        path = directory / name
        if path.is_symlink() or (path.exists() and not is_ours(path)):
            raise SettingsError(
                f"{variable('dir')}={directory}: {name} in it is not racepool's, and would be overwritten; choose "
                "another directory, or move the file away"
            )


def _replace(path: Path, text: str) -> None:
    """Writes the file in one step: another start never reads half of it, and a full disk leaves the old one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _set_supervisord(parser: RawConfigParser, *, is_silent: bool) -> None:
    parser["unix_http_server"]["file"] = f"%(here)s/{SOCKET}"
    parser["supervisorctl"]["serverurl"] = f"unix://%(here)s/{SOCKET}"
    supervisord = parser["supervisord"]
    supervisord["silent"] = str(is_silent).lower()
    supervisord["pidfile"] = f"%(here)s/{PIDFILE}"
    supervisord["logfile"] = "%(here)s/log/supervisord.log"
    supervisord["logfile_maxbytes"] = LOG_MAX_BYTES
    if os.getuid() == 0:
        supervisord["user"] = "root"  # it is root anyway; without this line supervisord warns


def _set_programs(parser: RawConfigParser, settings: Settings, *, exporter: bool) -> None:
    if exporter:
        parser["program:exporter"]["autostart"] = "true"
    else:
        parser.remove_section("program:exporter")
    for name, program in _programs(parser).items():
        program["command"] = _command(PROGRAMS[name])
        program["stdout_logfile"] = _logfile(program.get("process_name", name))
    parser["program:worker"]["numprocs"] = str(settings.workers)
    parser["program:worker"]["stopwaitsecs"] = str(ceil(settings.run_timeout) + GRACE_S)
    watchdog = parser["eventlistener:watchdog"]
    watchdog["command"] = _command("racepool.supervision.watchdog")
    watchdog["stderr_logfile"] = _logfile("watchdog")


def _log_to_stdout(parser: RawConfigParser) -> None:
    for program in _programs(parser).values():
        program.update(stdout_logfile=str(STDOUT), stdout_logfile_maxbytes="0")
    parser["eventlistener:watchdog"].update(stderr_logfile=str(STDERR), stderr_logfile_maxbytes="0")
    parser["supervisord"].update(logfile=os.devnull, logfile_maxbytes="0")  # it also logs to standard error


def _programs(parser: RawConfigParser) -> dict[str, SectionProxy]:
    """The sections of the programs that run, by the program's name."""
    return {name: parser[f"program:{name}"] for name in PROGRAMS if parser.has_section(f"program:{name}")}


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with a new pool's mark, and variables from which its programs load these settings."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return (
        os.environ
        | {POOL_MARK: uuid4().hex, PYTHON: shlex.quote(sys.executable)}
        | {variable(name): str(value) for name, value in values.items() if value is not None}
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """The process whose local pool it is, and the folder that goes with the pool."""

    pid: int
    directory: Path


def named_caller(pid: int, directory: Path) -> dict[str, str]:
    """The variable that tells supervisord whose pool it is; see `taken_caller`."""
    return {CALLER: f"{pid} {directory}"}


def taken_caller() -> Caller | None:
    """Takes the caller out of this process's environment: no child may take itself for this supervisord."""
    pid, _, directory = os.environ.pop(CALLER, "").partition(" ")
    return Caller(int(pid), Path(directory)) if pid else None


def _command(module: str, *arguments: str) -> str:
    return f"%(ENV_{PYTHON})s {shlex.join(['-P', '-m', module, *arguments])}"


def _logfile(name: str) -> str:
    """Supervisord expands this option twice; `name` may hold its own %(...)s."""
    return f"%%(here)s/log/{name}.log"
