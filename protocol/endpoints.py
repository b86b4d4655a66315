"""Where a pool's sockets are: for the settings, and for programs that stay too small to load those."""

import os
from pathlib import Path

ANY_HOST = "*"
SOCKETS = {"endpoint": "frontend", "backend": "backend", "heartbeat_endpoint": "heartbeat", "stats_endpoint": "stats"}


def is_tcp(endpoint: str) -> bool:
    """Whether an endpoint can be reached by others than this user."""
    return endpoint.startswith("tcp://")


def default_dir() -> Path:
    """The run directory, unless RACEPOOL_DIR says otherwise."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "racepool"
    return temporary_folder() / f"racepool-{os.getuid()}"


def temporary_folder() -> Path:
    """As `tempfile.gettempdir`, which tries to write there, and goes elsewhere from a disk that is full.

    All programs of a pool have to meet at one place.
    """
    return Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  # where a directory of our own is made


def sockets_in(directory: Path) -> dict[str, str]:
    """The default endpoints of a run directory, by setting."""
    return {setting: f"ipc://{directory}/{name}.ipc" for setting, name in SOCKETS.items()}


def stats_endpoint() -> str:
    """What `Settings.load().stats_endpoint` is, if the settings are valid."""
    directory = Path(os.environ.get("RACEPOOL_DIR") or default_dir()).absolute()
    return os.environ.get("RACEPOOL_STATS_ENDPOINT") or sockets_in(directory)["stats_endpoint"]
