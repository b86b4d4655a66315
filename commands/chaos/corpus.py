"""Real messages with random fields, and the ways to break them. The fuzzing tests use them, too."""

import string
from collections.abc import Callable
from dataclasses import fields
from random import Random
from typing import Any, get_type_hints

import msgpack

from racepool.protocol.messages import MAX_INT, PROTOCOL_VERSION, Epoch, Id, Name, Outcome, Payload, Text

NUMBERS = (0, 1, 2, 1_000, 2**31 - 1, 2**31, 2**32, 2**40, MAX_INT)
ODD_VALUES: tuple[object, ...] = (
    None, True, -1, 2**53, 2**64 - 1, -(2**63), 1.5, float("nan"), "", "x" * 65, "\u202e", b"", bytes(17), [], {},
    [[[]]], {"a": 1}, msgpack.ExtType(5, b"x"),
)  # fmt: skip

_VALUES: dict[object, Callable[[Random], object]] = {
    Id: lambda dice: dice.randbytes(16),
    Epoch: lambda dice: dice.randbytes(8),
    Text: lambda dice: "".join(dice.choices(string.printable[:94], k=dice.randrange(241))),
    Name: lambda dice: "".join(dice.choices(string.printable[:94] + "é語", k=dice.randrange(1, 65))),
    Name | None: lambda dice: dice.choice([None, "worker-1", "語" * 64]),
    int: lambda dice: dice.choice(NUMBERS),
    bool: lambda dice: dice.random() < 0.5,
    Outcome: lambda dice: dice.choice(list(Outcome)),
    bytes: lambda dice: dice.randbytes(dice.randrange(80)),
    Payload: lambda dice: dice.randbytes(dice.choice([0, 1, 80, 70_000])),
}


def real(kind: type, dice: Random, **given: object) -> Any:  # noqa: ANN401  # a message of that kind
    """A valid message of this kind. Its fields are random, except those given."""
    hints = get_type_hints(kind)
    return kind(**{field.name: _VALUES[hints[field.name]](dice) for field in fields(kind)} | given)


def noise(_frames: list[Payload], dice: Random) -> list[Payload]:
    """Random frames, in any number."""
    return [dice.randbytes(dice.randrange(600)) for _ in range(dice.randrange(1, 7))]


def cut(frames: list[Payload], dice: Random) -> list[Payload]:
    """The header is cut short."""
    return [bytes(frames[0])[: dice.randrange(len(frames[0]))], *frames[1:]]


def stretched(frames: list[Payload], dice: Random) -> list[Payload]:
    """The header has more bytes at its end."""
    return [bytes(frames[0]) + dice.randbytes(dice.choice([1, 9, 600])), *frames[1:]]


def flipped(frames: list[Payload], dice: Random) -> list[Payload]:
    """One byte of the header is another."""
    header = bytearray(frames[0])
    header[dice.randrange(len(header))] ^= dice.randrange(1, 256)
    return [bytes(header), *frames[1:]]


def retyped(frames: list[Payload], dice: Random) -> list[Payload]:
    """One field has another type or a value out of range, or the header has one field too many."""
    header = msgpack.unpackb(frames[0])
    at = dice.randrange(len(header) + 1)
    header[at : at + dice.randrange(2)] = [dice.choice(ODD_VALUES)]
    return [msgpack.packb(header), *frames[1:]]


def of_other_version(frames: list[Payload], dice: Random) -> list[Payload]:
    """A peer of another version sent it."""
    header = msgpack.unpackb(frames[0])
    header[0] = dice.choice([PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 0, MAX_INT])
    return [msgpack.packb(header), *frames[1:]]


def of_other_length(frames: list[Payload], dice: Random) -> list[Payload]:
    """A frame is missing, or there are too many."""
    return dice.choice([[b"", *frames], [*frames, *frames], [*frames, b""], frames[1:] or [b""], [*frames] * 50])


MUTATIONS: tuple[Callable[[list[Payload], Random], list[Payload]], ...] = (
    noise,
    cut,
    stretched,
    flipped,
    retyped,
    of_other_version,
    of_other_length,
)
