"""A TransformedRace whose models do not exist yet. The thread that first reads a field makes the models of that part.

This saves time where nobody needs the models: a worker packs the mapping that the transform computed, and the I/O
thread of the client only passes the JSON on. The caller's thread makes the models, and only those that it reads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import orjson
from pydantic import TypeAdapter
from pydantic_core import from_json

from racepool.races.transformed_race import MoneyFlowRecord, TransformedEntrant, TransformedRace

_ENTRANTS: Final = TypeAdapter(tuple[TransformedEntrant, ...])
_RECORDS: Final = TypeAdapter(tuple[MoneyFlowRecord, ...])
_LISTS: Final[Mapping[str, TypeAdapter[Any]]] = {"entrants": _ENTRANTS, "money_flow_records": _RECORDS}
_FIELDS: Final = frozenset(TransformedRace.model_fields)
_NO_LISTS: Final = dict.fromkeys(_LISTS, ())
_SOURCE: Final = "source"


@dataclass(frozen=True)
class JsonParts:
    """A race as three JSON texts: its entrants, its money-flow records, and all other fields (`head`).

    Each is parsed once, when one of its fields is read: a program that stores the records needs no entrants.
    """

    head: bytes
    entrants: bytes
    money_flow_records: bytes

    @cached_property
    def _head(self) -> TransformedRace:
        return TransformedRace.model_validate(from_json(self.head) | _NO_LISTS)

    @cached_property
    def _entrants(self) -> tuple[TransformedEntrant, ...]:
        return _ENTRANTS.validate_json(self.entrants)

    @cached_property
    def _records(self) -> tuple[MoneyFlowRecord, ...]:
        return _RECORDS.validate_json(self.money_flow_records)

    def field(self, name: str) -> Any:  # noqa: ANN401  # the fields have several types
        """The value of one field of the race."""
        match name:
            case "entrants":
                return self._entrants
            case "money_flow_records":
                return self._records
            case _:
                return getattr(self._head, name)

    def race(self) -> TransformedRace:
        """The whole race, with the parts that were parsed before."""
        lists = {name: self.field(name) for name in _LISTS}
        return self._head.model_copy(update=lists)


Source: TypeAlias = dict[str, Any] | JsonParts


class _UnopenedRace(TransformedRace):
    """Gives its fields one by one. At any other access it changes its class, and becomes a plain TransformedRace."""

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401  # the attributes have several types
        source = _source(self)
        if name in _FIELDS and isinstance(source, JsonParts):
            return source.field(name)
        _open(self)
        return getattr(self, name)


def unopened(source: Source) -> TransformedRace:
    """The race of these fields, or of this JSON. They are not validated here: a broken one raises at its first use."""
    race = object.__new__(_UnopenedRace)
    object.__setattr__(race, "__dict__", {_SOURCE: source})
    return race


def json_parts(race: TransformedRace) -> JsonParts:
    """The race as JSON. This is fastest while the race is unopened."""
    source = _source(race) if type(race) is _UnopenedRace else None
    if isinstance(source, JsonParts):
        return source
    if source is not None:
        try:
            return _parts(source, lambda value: orjson.dumps(value, default=vars))  # the meeting is a model: `vars`
        except TypeError:  # an amount of more than 64 bits
            pass
    return JsonParts(
        race.model_dump_json(exclude=set(_LISTS)).encode(),
        *(adapter.dump_json(getattr(race, name)) for name, adapter in _LISTS.items()),
    )


def _parts(source: dict[str, Any], dumps: Callable[[object], bytes]) -> JsonParts:
    head = {name: value for name, value in source.items() if name not in _LISTS}
    return JsonParts(dumps(head), *(dumps(source[name]) for name in _LISTS))


def _source(race: TransformedRace) -> Source | None:
    fields: dict[str, Any] = object.__getattribute__(race, "__dict__")
    return fields.get(_SOURCE)


def _open(race: _UnopenedRace) -> None:
    source = _source(race)
    if source is not None:  # if it is None, another thread has just opened the race
        whole = source.race() if isinstance(source, JsonParts) else TransformedRace.model_validate(source)
        for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__", "__dict__"):
            object.__setattr__(race, name, getattr(whole, name))
    object.__setattr__(race, "__class__", TransformedRace)
