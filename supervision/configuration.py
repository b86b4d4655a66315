"""supervisord's configuration for one pool, derived from the shipped file: for `racepool up` and for local pools."""

import os
import shlex
import sys
from configparser import RawConfigParser, SectionProxy
from math import ceil
from pathlib import Path
from uuid import uuid4

from racepool.protocol.errors import SettingsError
from racepool.protocol.settings import MAX_IPC_PATH_BYTES, Settings, variable
from racepool.supervision.orphans import MARK

LOG_MAX_BYTES = "10MB"
GRACE_S = 5  # what a worker gets beyond the run timeout, to send its result
PROGRAMS = {"broker": "racepool.broker", "worker": "racepool.worker", "exporter": "racepool.commands.exporter"}
SHIPPED = Path(__file__).with_name("supervisord.conf")
SOCKET = "supervisor.sock"
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
    directory = settings.private_dir()
    excess = excess_bytes(directory)
    if excess > 0:
        raise SettingsError(
            f"{variable('dir')}={directory}: its path is {excess} bytes too long for supervisord's socket; choose a "
            "shorter one, or a shorter TMPDIR for a local pool"
        )
    logs = directory / "log"
    logs.mkdir(mode=0o700, exist_ok=True)
    parser = RawConfigParser(inline_comment_prefixes=(";",))
    parser.read_string(SHIPPED.read_text(encoding="utf-8"))
    _set_supervisord(parser, directory)
    _set_programs(parser, settings, logs, exporter=exporter)
    if to_stdout:
        _log_to_stdout(parser)
    if owner_pid is not None:
        parser["program:owner"] = dict(parser["program:broker"]) | {
            "command": _command("racepool.supervision.owner", str(owner_pid)),
            "stdout_logfile": _logfile(logs, "owner"),
        }
    path = directory / "supervisord.conf"
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        parser.write(file)
    return path


def _set_supervisord(parser: RawConfigParser, directory: Path) -> None:
    parser["unix_http_server"]["file"] = _literal(directory / SOCKET)
    parser["supervisorctl"]["serverurl"] = f"unix://{_literal(directory / SOCKET)}"
    supervisord = parser["supervisord"]
    supervisord["pidfile"] = _literal(directory / "supervisord.pid")
    supervisord["logfile"] = _literal(directory / "log" / "supervisord.log")
    supervisord["logfile_maxbytes"] = LOG_MAX_BYTES
    if os.getuid() == 0:
        supervisord["user"] = "root"  # it is root anyway; without this line supervisord warns


def _set_programs(parser: RawConfigParser, settings: Settings, logs: Path, *, exporter: bool) -> None:
    if exporter:
        parser["program:exporter"]["autostart"] = "true"
    else:
        parser.remove_section("program:exporter")
    for name, program in _programs(parser).items():
        program["command"] = _command(PROGRAMS[name])
        program["stdout_logfile"] = _logfile(logs, program.get("process_name", name))
    parser["program:worker"]["numprocs"] = str(settings.workers)
    parser["program:worker"]["stopwaitsecs"] = str(ceil(settings.run_timeout) + GRACE_S)
    watchdog = parser["eventlistener:watchdog"]
    watchdog["command"] = _command("racepool.supervision.watchdog")
    watchdog["stderr_logfile"] = _logfile(logs, "watchdog")


def _log_to_stdout(parser: RawConfigParser) -> None:
    for program in _programs(parser).values():
        program.update(stdout_logfile=str(STDOUT), stdout_logfile_maxbytes="0")
    parser["eventlistener:watchdog"].update(stderr_logfile=str(STDERR), stderr_logfile_maxbytes="0")
    parser["supervisord"].update(logfile=os.devnull, logfile_maxbytes="0")  # it also logs to standard error


def _programs(parser: RawConfigParser) -> dict[str, SectionProxy]:
    """The sections of the programs that run, by the program's name."""
    return {name: parser[f"program:{name}"] for name in PROGRAMS if parser.has_section(f"program:{name}")}


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with the mark of a new pool, and with variables that hold these settings."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return (
        os.environ
        | {MARK: uuid4().hex}
        | {variable(name): str(value) for name, value in values.items() if value is not None}
    )


def _command(module: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-P", "-m", module, *arguments]).replace("%", "%%")


def _logfile(logs: Path, name: str) -> str:
    """The folder is escaped twice, as supervisord expands this option twice; `name` may hold its own %(...)s."""
    return f"{_literal(logs).replace('%', '%%')}/{name}.log"


def _literal(path: Path) -> str:
    return str(path).replace("%", "%%")
