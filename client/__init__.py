"""The client library: submit races to the broker, await their money flow.

>>> from client import pool
>>> result = await pool.exec(body)  # doctest: +SKIP

The public names are those of `client.face`. They are imported when the first of them is used: the small programs of
this package, which run beside every pool, need none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.face import *  # noqa: F403


def __getattr__(name: str) -> object:
    face = import_module("client.face")
    if name == "__all__" or name in face.__all__:
        globals()[name] = getattr(face, name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(import_module("client.face").__all__)
