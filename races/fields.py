"""The types of a race's fields: which values each may have, and the text for a rule that is broken.

Knows single values, not the shape of a race. Where pydantic's compiled core can check a rule, it does: to call a Python
function costs more than the check.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetPydanticSchema, PlainValidator, Strict
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

T = TypeVar("T")

STATUSES: Final = ("open", "closed", "interim", "final", "abandoned", "live")
UNKNOWN_STATUS: Final = "unknown"
LARGEST_NUMBER: Final = 1_000_000_000_000  # dollars, percent or odds; sums stay exact, and far from infinity
LARGEST_WHOLE: Final = 1_000_000_000
LARGEST_INSTANT: Final = 253_402_300_799  # seconds since 1970; the end of the year 9999, the last that datetime has

_DATE = re.compile(r"(?:19|[2-9][0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}")
_START_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?(?: *(?:NZST|NZDT))?")
_DIGITS = re.compile(r"[0-9]+")


def _status(text: str | None) -> str:
    return (text or "").strip().casefold() or UNKNOWN_STATUS


def is_date(text: str) -> bool:
    """Whether the text is a calendar date as YYYY-MM-DD, from the year 1900 on."""
    try:
        return bool(_DATE.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False


def _race_date(text: str) -> str:
    if is_date(text):
        return text
    raise PydanticCustomError("race_date", "must be a calendar date as YYYY-MM-DD, from the year 1900 on")


def _start_time(text: str) -> str:
    if not _START_TIME.fullmatch(text):
        raise PydanticCustomError(
            "start_time", "must be a time of day as HH:MM or HH:MM:SS, optionally followed by NZST or NZDT"
        )
    return text


def _barrier(value: object) -> int | None:
    """Reads a barrier. A text such as Fr1 means the first number in it. A text without a number counts as 0: none."""
    if value is None:
        return None
    if isinstance(value, str):
        digits = _DIGITS.search(value)
        value = (digits[0].lstrip("0")[:11] or 0) if digits else 0
    elif isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        value = -1
    barrier = int(value)
    if not 0 <= barrier <= LARGEST_WHOLE:
        raise PydanticCustomError(
            "barrier",
            "must be a whole number from 0 to {largest}, or text with one in it such as Fr1",
            {"largest": LARGEST_WHOLE},
        )
    return barrier


def _whole(smallest: int, largest: int) -> GetPydanticSchema:
    """A JSON number without a fraction: 5 and 5.0 are both right, a text or a boolean is wrong."""
    number = core_schema.float_schema(strict=True, allow_inf_nan=False, ge=smallest, le=largest)
    return GetPydanticSchema(lambda _type, _handler: core_schema.chain_schema([number, core_schema.int_schema()]))


def _from_nullable(schema: CoreSchema, read: Callable[[Any], object]) -> CoreSchema:
    return core_schema.no_info_after_validator_function(read, core_schema.nullable_schema(schema))


def _null_as_empty(source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    return _from_nullable(handler(source), lambda items: () if items is None else items)


# pydantic refuses a lone surrogate, which JSON cannot hold, only if the text has a constraint. So each has one.
Text: TypeAlias = Annotated[str, Strict(), Field(min_length=0)]
Identifier: TypeAlias = Annotated[str, Strict(), Field(min_length=1)]
Flag: TypeAlias = Annotated[bool, Strict()]
Number: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=LARGEST_NUMBER, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, _whole(0, LARGEST_WHOLE)]
RunnerNumber: TypeAlias = Annotated[int, _whole(1, LARGEST_WHOLE)]
EpochSeconds: TypeAlias = Annotated[int, _whole(0, LARGEST_INSTANT)]
Barrier: TypeAlias = Annotated[int | None, PlainValidator(_barrier)]
Status: TypeAlias = Annotated[str, GetPydanticSchema(lambda _type, handler: _from_nullable(handler(Text), _status))]
RaceDate: TypeAlias = Annotated[str, Strict(), AfterValidator(_race_date)]
StartTime: TypeAlias = Annotated[str, Strict(), AfterValidator(_start_time)]
LocalDate: TypeAlias = Annotated[
    str, GetPydanticSchema(lambda _type, handler: handler(RaceDate | None)), Field(default=None)
]
LocalTime: TypeAlias = Annotated[
    str, GetPydanticSchema(lambda _type, handler: handler(StartTime | None)), Field(default=None)
]
"""A date and a time that may be absent in the input. A model with them must derive them: with_local_start."""
Listed: TypeAlias = Annotated[tuple[T, ...], GetPydanticSchema(_null_as_empty)]

UNICODE_RULE: Final = "must be valid Unicode text"
_NUMBER_RULE: Final = "must be a finite JSON number, not text or a boolean"
_RULES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "model_type": "must be an object",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": UNICODE_RULE,
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": _NUMBER_RULE,
    "finite_number": _NUMBER_RULE,
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must be {ge:.0f} or more",
    "less_than_equal": "must be {le:.0f} or less",
}


def rule_text(error: ErrorDetails) -> str:
    """The broken rule in our words; in those of pydantic if we have none."""
    if "trailing characters" in error["msg"]:
        return f"{error['msg']}; a body holds one JSON value, so submit each value of NDJSON alone"
    rule = _RULES.get(error["type"])
    return error["msg"] if rule is None else rule.format(**error.get("ctx", {}))
