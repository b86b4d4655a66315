"""Leaves parts out of invented polls, as the tote does: the money tracker, the pools or the runners."""

from random import Random
from typing import Any, Final

_SHARE: Final = 0.2  # of the polls
_ABSENT: Final = "absent"
_EMPTY: Final[dict[str, Any]] = {"money_tracker": {"entrants": []}, "tote_pools": [], "runners": []}
HOLES: Final = tuple((key, left) for key, empty in _EMPTY.items() for left in (_ABSENT, None, empty))


def with_hole(response: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The response itself; in one case of five, a copy of it with one part absent, null or empty."""
    if rng.random() >= _SHARE:
        return response
    key, left = rng.choice(HOLES)
    data = {name: part for name, part in response["data"].items() if name != key}
    return {**response, "data": data if left is _ABSENT else {**data, key: left}}
