"""What a plain installation lacks: an option that needs more says so before the work, not after it."""

import importlib.util
import json
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any
from urllib.parse import unquote, urlsplit

from racepool.protocol.errors import PoolError

DISTRIBUTION = "racepool"


def require(*modules: str, extra: str, purpose: str) -> None:
    """Makes sure that the modules of an extra are there.

    Raises:
        PoolError: one is not installed; the text says how to get it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise PoolError(f"{purpose} needs {', '.join(missing)}: {remedy(extra)}")


def remedy(extra: str) -> str:
    """The command that adds an extra to this installation, from the same source."""
    return f"pip install {shlex.join(_requirement(extra, _origin()))}"


def _origin() -> dict[str, Any]:
    """What pip wrote down when it installed racepool (PEP 610); empty if it came from an index.

    Without any installation we are imported from a clone, and its root is likely the current folder.
    """
    try:
        written = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        return {"url": ".", "dir_info": {"editable": True}}
    origin: dict[str, Any] = json.loads(written) if written else {}
    return origin


def _requirement(extra: str, origin: Mapping[str, Any]) -> list[str]:
    """As pip wants it: a clone, a wheel's file or a repository, each with the extra."""
    url = origin.get("url")
    match origin:
        case {"dir_info": {"editable": True}}:
            return ["-e", f"{unquote(urlsplit(url).path)}[{extra}]"]
        case {"vcs_info": {"vcs": vcs}}:
            return [f"{DISTRIBUTION}[{extra}] @ {vcs}+{url}"]
        case _:
            return [f"{DISTRIBUTION}[{extra}] @ {url}" if url else f"{DISTRIBUTION}[{extra}]"]
