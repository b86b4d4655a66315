"""The supervisord of the pool: its list of programs, and its configuration file."""

from collections.abc import Mapping
from configparser import Error, RawConfigParser
from pathlib import Path
from typing import Any

from racepool.commands.doctor.facts import Program, Supervision
from racepool.commands.doctor.probes.processes import arguments_of, environment_of, process
from racepool.protocol.processes import pid_here
from racepool.protocol.settings import Settings
from racepool.supervision.configuration import SOCKET
from racepool.supervision.endings import SOON_S, last_words
from racepool.supervision.rpc import SERVER_URL, Supervisor

SECTIONS = ("program", "eventlistener")


def supervision(settings: Settings, broker_pid: int | None) -> Supervision | None:
    """Asks the supervisord that started this broker, or that of the run directory; None if there is neither."""
    environment = environment_of(broker_pid) if broker_pid else {}
    default = settings.dir / SOCKET
    if SERVER_URL not in environment:
        if not default.exists():
            return None
        environment = {SERVER_URL: f"unix://{default}"}
    address = environment[SERVER_URL]
    supervisor = Supervisor(environment)
    pid = supervisor.pid()
    rows = None if pid is None else supervisor.rows()
    if pid is None or rows is None:
        return Supervision(address)
    here = pid_here(pid, broker_pid)  # supervisord and its programs are in one pid namespace
    configuration = _configuration(here) if here else None
    restarts = _restarts(configuration) if configuration else None
    return Supervision(address, here or pid, tuple(_program(row, broker_pid) for row in rows), restarts)


def _program(row: Mapping[str, Any], broker_pid: int | None) -> Program:
    here = pid_here(row["pid"], broker_pid) if row["pid"] else None
    pid, names = here or row["pid"], (row["stdout_logfile"], row["stderr_logfile"])
    logs = tuple(Path(name) for name in names if name.startswith("/") and not name.startswith("/dev/"))
    ended_s_ago = row["now"] - row["stop"] if row["stop"] else None
    is_ailing = pid == 0 or (ended_s_ago is not None and ended_s_ago < 2 * SOON_S)
    return Program(
        name=row["name"],
        group=row["group"],
        state=row["statename"],
        pid=pid,
        uptime_s=row["now"] - row["start"] if pid else None,
        spawn_error=row["spawnerr"],
        logs=logs,
        process=process(here) if here else None,
        ended_s_ago=ended_s_ago,
        last_words=last_words(logs[0]) if logs and is_ailing else "",
    )


def _configuration(pid: int) -> Path | None:
    """The configuration file in supervisord's command line; None if it names none."""
    arguments = arguments_of(pid)
    for flag in ("--configuration", "-c"):
        if flag in arguments[:-1]:
            path = Path(f"/proc/{pid}/cwd") / arguments[arguments.index(flag) + 1]
            return path if path.is_file() else None
    return None


def _restarts(configuration: Path) -> dict[str, bool] | None:
    parser = RawConfigParser(inline_comment_prefixes=(";", " #"), strict=False)
    try:
        parser.read_string(configuration.read_text(encoding="utf-8"))
    except (OSError, ValueError, Error):
        return None
    named = [(section, *section.partition(":")[::2]) for section in parser.sections()]
    return {
        name: parser.get(section, "autorestart", fallback="unexpected").lower() in ("true", "yes", "on", "1")
        for section, kind, name in named
        if kind in SECTIONS
    }
