"""One task from payload to payload: unpack, validate, transform, pack. Every failure becomes an outcome."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeAlias

from racepool.protocol.errors import FieldError, InvalidRaceError, SettingsError
from racepool.protocol.failures import BadPayloadError, pack_field_errors, pack_raised, pack_size
from racepool.protocol.messages import Outcome, Payload
from racepool.protocol.parcel import Parcel
from racepool.races.payloads import pack_result, unpack_request
from racepool.races.race import valid_race

Transform: TypeAlias = Callable[..., Any]
"""Called like `transform_race`: `transform(race, polled_at=..., previous=...)`."""

MAX_NAME_CHARS = 200
MAX_MESSAGE_CHARS = 4_096
MAX_TRACEBACK_CHARS = 16_384


class Execution:
    """Runs a transform on payloads. `race_id` is the id of the last race, for the log; None if it had none."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self._pid = os.getpid()
        self.race_id: str | None = None

    def run(self, payload: Payload | Parcel, limit_bytes: int) -> tuple[Outcome, bytes]:
        """Runs one task. Never raises, neither for a bad payload nor for an exception of the transform.

        If the transform forks and also returns in the child, the child ends here: the sockets are the parent's.

        Args:
            payload: a request, whole or in its two parts.
            limit_bytes: the largest payload that may be returned.

        Returns:
            The outcome, and its payload: the result, or what the client needs to make the error.
        """
        self.race_id = None
        outcome = self._outcome(payload, limit_bytes)
        if os.getpid() != self._pid:
            os._exit(0 if outcome[0] is Outcome.OK else 1)
        return outcome

    def _outcome(self, payload: Payload | Parcel, limit_bytes: int) -> tuple[Outcome, bytes]:
        try:
            request = unpack_request(payload)
            race = valid_race(request.race, limit_bytes)
            self.race_id = race.id
            result = self._transform(race, polled_at=request.polled_at, previous=request.previous)
            packed = pack_result(result)
        except InvalidRaceError as error:
            return _invalid(error, limit_bytes)
        except BadPayloadError as error:
            return Outcome.INVALID_RACE, _field_errors([FieldError("", f"the payload {error}")], limit_bytes)
        except BaseException as error:  # noqa: BLE001  # every error of a transform goes to its caller
            return Outcome.RAISED, _raised(error, limit_bytes)
        if len(packed) > limit_bytes:
            return Outcome.TOO_LARGE, pack_size(len(packed))
        return Outcome.OK, packed


def load_transform(path: str) -> Transform:
    """The function that `package.module:function` names.

    Raises:
        SettingsError: names the path, and what is wrong with it.
    """
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name:
        raise SettingsError(f"RACEPOOL_TRANSFORM={path}: is not of the form package.module:function")
    pid = os.getpid()
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"RACEPOOL_TRANSFORM={path}: {error}; install it, or set PYTHONPATH for the workers"
        ) from error
    except AttributeError as error:
        raise SettingsError(f"RACEPOOL_TRANSFORM={path}: {error}") from error
    except (Exception, SystemExit) as error:  # an import runs the module's code, which may raise anything
        raise SettingsError(f"RACEPOOL_TRANSFORM={path}: cannot be imported: {error!r}") from error
    finally:
        if os.getpid() != pid:  # the import forked, and this is the child
            os._exit(0 if sys.exception() is None else 1)
    if not callable(function):
        raise SettingsError(f"RACEPOOL_TRANSFORM={path}: is not callable")
    transform: Transform = function
    return transform


def _invalid(error: InvalidRaceError, limit_bytes: int) -> tuple[Outcome, bytes]:
    """A transform may raise a subclass of InvalidRaceError whose `errors` are anything."""
    try:
        return Outcome.INVALID_RACE, _field_errors(error.errors, limit_bytes)
    except Exception:  # noqa: BLE001  # `errors` may be anything
        return Outcome.RAISED, _raised(error, limit_bytes)


def _field_errors(errors: list[FieldError], limit_bytes: int) -> bytes:
    """As many errors as fit, shortened."""
    while len(packed := pack_field_errors(errors)) > limit_bytes:
        longest = limit_bytes // 16
        errors = [FieldError(path[:longest], message[:longest]) for path, message in errors[: len(errors) // 2 or 1]]
    return packed


def _raised(error: BaseException, limit_bytes: int) -> bytes:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = "".join(traceback.format_exception(error))
        message = str(error)
    except BaseException as second:  # noqa: BLE001  # an exception whose own text raises
        text, message = f"(its traceback cannot be shown: {type(second).__name__})", "(its text cannot be shown)"
    message = message[: min(MAX_MESSAGE_CHARS, limit_bytes // 16)]
    text = text[-min(MAX_TRACEBACK_CHARS, limit_bytes // 8) :]  # the end says most; a character has up to 4 bytes
    return pack_raised(name[:MAX_NAME_CHARS], message, text)
