"""One bound on how deep a value may be nested, for all that the programs pack, unpack or read as JSON.

The libraries have bounds of their own. Those differ by library and by Python version, and they protect only a thread
with a large stack: in a thread of 64 KiB (`threading.stack_size`), 100 levels end the process. So each value is checked
here first, without recursion.
"""

import gc
import re
import threading
from collections.abc import Callable, Iterable
from itertools import chain
from types import NoneType
from typing import Any, Final, TypeAlias

from pydantic_core import from_json

MAX_NESTING: Final = 64  # levels of lists and mappings; an NZ TAB response has 7
SMALL_STACK_BYTES: Final = 2**20  # the JSON parsers stop at 200 to 10,000 levels, and need this much for them

Plain: TypeAlias = Callable[[object], object]
"""Turns a value that msgpack does not know into one that it knows; raises TypeError if there is none."""

_ATOMS: Final = frozenset({str, int, float, bool, bytes, NoneType})
_CONTAINERS: Final = frozenset({list, tuple, dict})
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # the last one of a cut text may have no end
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class TooDeepError(ValueError):
    """A value is nested too deep, or contains itself; the text names the bound, as the end of a sentence."""

    def __init__(self) -> None:
        super().__init__(f"is nested more than {MAX_NESTING} levels deep")


def check_nesting(value: object, plain: Plain | None = None) -> None:
    """Refuses a value that is nested too deep, or contains itself.

    Raises:
        TooDeepError: it is.
    """
    level = _containers([value], plain)
    for _ in range(MAX_NESTING):
        if not level:
            return
        level = _containers(gc.get_referents(*level), plain)
    if level:
        raise TooDeepError


def check_json_nesting(text: bytes | str) -> None:
    """Refuses a JSON text, whole or cut off, that is nested too deep.

    Raises:
        TooDeepError: it is.
    """
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    depth = 0
    for bracket in _STRING.sub(b"", content).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            raise TooDeepError


def are_stacks_small() -> bool:
    """Whether this process starts its threads with a stack that deep JSON could overflow. 0 is the system's size."""
    return 0 < threading.stack_size() < SMALL_STACK_BYTES


def read_json(text: bytes | str, *, allow_partial: bool = False) -> Any:  # noqa: ANN401  # any value
    """The value of a JSON text.

    Raises:
        TooDeepError: the text is nested too deep.
        ValueError, TypeError: it is no JSON (TypeError: it has a lone surrogate).
    """
    check_json_nesting(text)
    return from_json(text, allow_partial=allow_partial)


def _containers(values: Iterable[object], plain: Plain | None) -> list[object]:
    """The containers among the values, each once, as lists, tuples or dicts."""
    odd = [value for value in values if type(value) not in _ATOMS]
    found = (value if type(value) in _CONTAINERS else _container(value, plain) for value in odd)
    return list({id(each): each for each in found if each is not None}.values())


def _container(value: object, plain: Plain | None) -> object:
    """The content of a value of another class; None if it is no container."""
    if isinstance(value, dict):
        return list(chain(value, value.values()))
    if isinstance(value, list | tuple):
        return list(value)
    try:
        content = plain(value) if plain else None
    except TypeError:
        return None
    return content if type(content) in _CONTAINERS else None
