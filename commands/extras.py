"""What a plain installation lacks: an option that needs more says so before the work, not after it."""

import importlib.util

from racepool.protocol.errors import PoolError


def require(module: str, *, extra: str, purpose: str) -> None:
    """Makes sure that an optional dependency is there.

    Raises:
        PoolError: it is not installed; the text says how to get it.
    """
    if importlib.util.find_spec(module) is None:
        raise PoolError(f"{purpose} needs {module}: pip install 'racepool[{extra}]'")
