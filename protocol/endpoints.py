"""Where a pool's sockets are. Needs no pydantic, so that small programs can use it without the settings."""

import os
from pathlib import Path

ANY_HOST = "*"
SOCKETS = {"endpoint": "frontend", "backend": "backend", "heartbeat_endpoint": "heartbeat", "stats_endpoint": "stats"}


def is_tcp(endpoint: str) -> bool:
    """Whether other users can reach this endpoint, too."""
    return endpoint.startswith("tcp://")


def socket_path(endpoint: str) -> Path | None:
    """The socket file of an ipc endpoint; None for a tcp endpoint."""
    return Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None


def default_dir() -> Path:
    """The run directory, unless RACEPOOL_DIR says otherwise."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "racepool"
    return temporary_folder() / f"racepool-{os.getuid()}"


def temporary_folder() -> Path:
    """TMPDIR, or /tmp. Not `tempfile.gettempdir`: if the disk is full, that returns another folder.

    All programs of a pool have to use the same one.
    """
    return Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  # we make a private directory in it


def sockets_in(directory: Path) -> dict[str, str]:
    """The default endpoints of a run directory, by the name of their setting."""
    return {setting: f"ipc://{directory}/{name}.ipc" for setting, name in SOCKETS.items()}


def stats_endpoint() -> str:
    """The same as `Settings.load().stats_endpoint` if the settings are valid."""
    directory = Path(os.environ.get("RACEPOOL_DIR") or default_dir()).absolute()
    return os.environ.get("RACEPOOL_STATS_ENDPOINT") or sockets_in(directory)["stats_endpoint"]
