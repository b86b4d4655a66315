"""Turns messages into frames and back, and checks every rule of a frame. Knows no socket, and opens no payload.

A message is one header frame, and a payload frame after it where the message has a `payload` field. The header is the
msgpack array `[protocol version, command, *fields]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast, get_type_hints

import msgpack

from racepool.protocol.messages import (
    EPOCH_BYTES,
    ID_BYTES,
    MAX_INT,
    MAX_NAME_CHARS,
    MAX_TEXT_BYTES,
    PROTOCOL_VERSION,
    Answer,
    AskStats,
    Assign,
    Bye,
    Cancel,
    CannotStart,
    Epoch,
    Expire,
    FromClient,
    FromWorker,
    Heartbeat,
    Hello,
    Id,
    Message,
    Name,
    Outcome,
    Payload,
    Ping,
    Pong,
    Ready,
    Recall,
    Recycle,
    Refused,
    Reject,
    Result,
    Returned,
    Stats,
    Submit,
    Text,
    ToClient,
    ToHeartbeat,
    ToWorker,
    Trouble,
    Waited,
    Welcome,
    Who,
)

MAX_HEADER_BYTES = 512
MAX_REFERENCE_BYTES = 65_536  # the payload of a message that `is_shared`


class BadFrameError(Exception):
    """The frames are not a message of this protocol; the text says why."""


class ForeignVersionError(BadFrameError):
    """A message of another protocol version."""

    def __init__(self, version: int) -> None:
        super().__init__(f"protocol version {version}, this side speaks {PROTOCOL_VERSION}")
        self.version = version


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_INT


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_NAME_CHARS and value.isprintable()


def _is_text(value: object) -> bool:
    return type(value) is str and value.isprintable() and len(value.encode()) <= MAX_TEXT_BYTES


_FITS: dict[object, Callable[[Any], bool]] = {
    Id: lambda value: type(value) is bytes and len(value) == ID_BYTES,
    Epoch: lambda value: type(value) is bytes and len(value) == EPOCH_BYTES,
    Name: _is_name,
    Name | None: lambda value: value is None or _is_name(value),
    Text: _is_text,
    int: _is_count,
    bool: lambda value: type(value) is bool,
    Outcome: lambda value: type(value) is str and value in _OUTCOMES,
}


class _Command:
    """One message class, prepared for its way to frames and back: all that can be worked out once, at import."""

    def __init__(self, message: type) -> None:
        hints = get_type_hints(message)
        names = [field.name for field in fields(message)]
        self.message = message
        self.name = message.__name__.upper()
        self.has_payload = "payload" in names
        self.header_names = [name for name in names if name != "payload"]
        self.fits = [_FITS[hints[name]] for name in self.header_names]
        self.shared_at = self.header_names.index("is_shared") if "is_shared" in names else None
        self.outcome_at = self.header_names.index("outcome") if "outcome" in names else None
        self.values = self._getter()

    def _getter(self) -> Callable[[Any], tuple[Any, ...]]:
        if not self.header_names:
            return lambda _message: ()
        getter = attrgetter(*self.header_names)
        if len(self.header_names) == 1:
            return lambda message: (getter(message),)
        return getter


_COMMANDS: dict[type, _Command] = {}
M = TypeVar("M")


class Inlet(Generic[M]):
    """The messages that may come in at one kind of socket; `decode` refuses all others there."""

    def __init__(self, *messages: type[M]) -> None:
        self.commands: dict[str, _Command] = {}
        for message in messages:
            command = _COMMANDS.setdefault(message, _Command(message))
            self.commands[command.name] = command


FROM_CLIENT: Inlet[FromClient] = Inlet(Hello, Submit, Expire, Cancel, Ping, AskStats, Bye)
TO_CLIENT: Inlet[ToClient] = Inlet(Welcome, Answer, Reject, Refused, Waited, Pong, Trouble, Who, Stats, Bye)
FROM_WORKER: Inlet[FromWorker] = Inlet(Ready, CannotStart, Result, Returned, Bye)
TO_WORKER: Inlet[ToWorker] = Inlet(Welcome, Assign, Recall, Recycle, Who, Bye)
FROM_HEARTBEAT: Inlet[Heartbeat] = Inlet(Heartbeat)
TO_HEARTBEAT: Inlet[ToHeartbeat] = Inlet(Pong, Who)


def encode(message: Message) -> list[Payload]:
    """The message's frames: its header, and its payload if it has one."""
    command = _COMMANDS[type(message)]
    header: bytes = msgpack.packb([PROTOCOL_VERSION, command.name, *command.values(message)])
    if command.has_payload:
        return [header, message.payload]  # type: ignore[union-attr]  # has_payload says so
    return [header]


def decode(frames: Sequence[Payload], inlet: Inlet[M]) -> M:
    """The message in these frames.

    Args:
        frames: all frames of one multipart, without routing id.
        inlet: the messages that this socket accepts, such as FROM_CLIENT.

    Raises:
        ForeignVersionError: the header is of another protocol version.
        BadFrameError: the frames break any other rule, or are a message that this inlet does not accept.
    """
    header = _unpack_header(frames[0]) if frames else None
    if type(header) is not list or len(header) < 2 or not _is_count(header[0]):
        raise BadFrameError("the header is no msgpack array of a protocol version and a command")
    if header[0] != PROTOCOL_VERSION:
        raise ForeignVersionError(header[0])
    command = inlet.commands.get(header[1]) if type(header[1]) is str else None
    if command is None:
        raise BadFrameError("the command is unknown here")
    if len(frames) != 1 + command.has_payload:
        raise BadFrameError(f"{command.name} takes {1 + command.has_payload} frames, not {len(frames)}")
    values = header[2:]
    if len(values) != len(command.fits):
        raise BadFrameError(f"{command.name} takes {len(command.fits)} fields, not {len(values)}")
    for name, fits, value in zip(command.header_names, command.fits, values, strict=True):
        if not fits(value):
            raise BadFrameError(f"{command.name}: {name} breaks its rule")
    if command.shared_at is not None and values[command.shared_at] and len(frames[1]) > MAX_REFERENCE_BYTES:
        raise BadFrameError(f"{command.name}: a reference has at most {MAX_REFERENCE_BYTES} bytes")
    if command.outcome_at is not None:
        values[command.outcome_at] = _OUTCOMES[values[command.outcome_at]]
    return cast("M", command.message(*values, *frames[1:]))


def task_in(frames: Sequence[Payload]) -> Id | None:
    """The task of a SUBMIT that breaks a rule; None if the frames are nothing of the kind."""
    header = _unpack_header(frames[0]) if frames else None
    about = header[2] if type(header) is list and len(header) > 2 and header[1] == "SUBMIT" else None
    return Id(about) if type(about) is bytes and len(about) == ID_BYTES else None


def _unpack_header(frame: Payload) -> object:
    if len(frame) > MAX_HEADER_BYTES:
        return None
    try:
        unpacked: object = msgpack.unpackb(
            frame, max_array_len=16, max_map_len=0, max_ext_len=0, max_str_len=256, max_bin_len=64
        )
    except Exception:  # noqa: BLE001  # hostile bytes raise ValueError, TypeError, OutOfData (a bare Exception) and more
        return None
    return unpacked
