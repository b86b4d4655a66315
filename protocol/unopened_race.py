"""A TransformedRace that nobody has looked at yet: its parts are made at the first look, by whoever looks.

Most results only pass through, from the transform into a payload or from a payload to one reader: a worker packs the
mapping that it computed without ever making models of it, and the client's I/O thread opens nothing.
"""

from typing import Any

import orjson

from protocol.transformed_race import TransformedRace

_SOURCE = "source"
_from_json = TransformedRace.model_validate_json


class _UnopenedRace(TransformedRace):
    """Becomes a TransformedRace, in its class too, as soon as anything of it is asked for; by any thread."""

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401  # whatever it is
        _open(self)
        return getattr(self, name)


def unopened(source: dict[str, Any] | bytes) -> TransformedRace:
    """The race of these fields, or of this JSON, which is taken to be right: a broken one raises at the first look."""
    race = object.__new__(_UnopenedRace)
    object.__setattr__(race, "__dict__", {_SOURCE: source})
    return race


def json_of(race: TransformedRace) -> bytes:
    """As `model_dump_json`, but faster if nobody has looked at the race yet."""
    source = _source(race) if type(race) is _UnopenedRace else None
    if isinstance(source, dict):
        try:
            return orjson.dumps(source, default=vars)  # `vars` of what is a model already
        except TypeError:  # an amount of more than 64 bits
            pass
    return source if isinstance(source, bytes) else race.model_dump_json().encode()


def _source(race: TransformedRace) -> dict[str, Any] | bytes | None:
    fields: dict[str, Any] = object.__getattribute__(race, "__dict__")
    return fields.get(_SOURCE)


def _open(race: _UnopenedRace) -> None:
    source = _source(race)
    if source is not None:  # else another thread has just opened it
        whole = _from_json(source) if isinstance(source, bytes) else TransformedRace.model_validate(source)
        for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__", "__dict__"):
            object.__setattr__(race, name, getattr(whole, name))
    object.__setattr__(race, "__class__", TransformedRace)
