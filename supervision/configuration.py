"""supervisord from the shipped configuration: for `racepool up`, and for a pool of one's own."""

import os
import shlex
import sys
from configparser import RawConfigParser
from math import ceil
from pathlib import Path

from racepool.protocol.errors import SettingsError
from racepool.protocol.settings import MAX_IPC_PATH_BYTES, Settings, variable

LOG_MAX_BYTES = "10MB"
GRACE_S = 5  # beyond the run timeout, for the reply
PROGRAMS = ("broker", "worker")
SHIPPED = Path(__file__).with_name("supervisord.conf")
SOCKET = "supervisor.sock"
LONGEST_PID = 7  # supervisord binds to a name that ends with its pid, and renames that
STDOUT = Path("/dev/stdout")
STDERR = Path("/dev/stderr")


def supervisord_command(configuration: Path) -> list[str]:
    """The command line of a supervisord in the foreground."""
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
    """By how many bytes supervisord's socket has no room in this run directory; zero or less if it has."""
    return len(os.fsencode(directory / f"{SOCKET}.")) + LONGEST_PID - MAX_IPC_PATH_BYTES


def write_configuration(
    settings: Settings, *, owner_pid: int | None = None, to_stdout: bool = False, exporter: bool = False
) -> Path:
    """Derives supervisord's file from the shipped one and writes it into the run directory.

    Args:
        settings: of the pool; `workers` processes are configured.
        owner_pid: end everything when this process ends.
        to_stdout: broker and workers log to supervisord's standard output, the others to its standard error.
        exporter: run the exporter as well.

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
    parser["unix_http_server"]["file"] = _literal(directory / SOCKET)
    parser["supervisorctl"]["serverurl"] = f"unix://{_literal(directory / SOCKET)}"
    parser["supervisord"]["pidfile"] = _literal(directory / "supervisord.pid")
    parser["supervisord"]["logfile"] = _literal(logs / "supervisord.log")
    parser["supervisord"]["logfile_maxbytes"] = LOG_MAX_BYTES
    if os.getuid() == 0:
        parser["supervisord"]["user"] = "root"  # as we are; without it supervisord warns
    for name in PROGRAMS:
        program = parser[f"program:{name}"]
        program["command"] = _command(f"racepool.{name}")
        program["stdout_logfile"] = _logfile(logs, program.get("process_name", name))
    watchdog = parser["eventlistener:watchdog"]
    watchdog["command"] = _command("racepool.supervision.watchdog")
    watchdog["stderr_logfile"] = _logfile(logs, "watchdog")
    if exporter:
        parser["program:exporter"]["autostart"] = "true"
        parser["program:exporter"]["command"] = _command("racepool.commands.exporter")
        parser["program:exporter"]["stdout_logfile"] = _logfile(logs, "exporter")
    else:
        parser.remove_section("program:exporter")
    if to_stdout:
        for name in (*PROGRAMS, *(["exporter"] if exporter else [])):
            parser[f"program:{name}"].update(stdout_logfile=str(STDOUT), stdout_logfile_maxbytes="0")
        watchdog.update(stderr_logfile=str(STDERR), stderr_logfile_maxbytes="0")
        parser["supervisord"].update(logfile=os.devnull, logfile_maxbytes="0")  # it shows all on standard error
    parser["program:worker"]["numprocs"] = str(settings.workers)
    parser["program:worker"]["stopwaitsecs"] = str(ceil(settings.run_timeout) + GRACE_S)
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


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment in which supervisord's children find these very settings."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return os.environ | {variable(name): str(value) for name, value in values.items() if value is not None}


def _command(module: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-P", "-m", module, *arguments]).replace("%", "%%")


def _logfile(logs: Path, name: str) -> str:
    return f"{_literal(logs).replace('%', '%%')}/{name}.log"  # supervisord expands this option twice


def _literal(path: Path) -> str:
    return str(path).replace("%", "%%")
