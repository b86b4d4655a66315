"""A day of captured polls: finds the files, reads the head of each, and puts them in order. Keeps no bodies."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from racepool.commands.replay.head import head_of, instant_in
from racepool.commands.replay.poll import CapturedPoll, UnreadFile
from racepool.protocol import VERSION
from racepool.protocol.errors import InvalidRaceError, PoolError
from racepool.races.json_text import json_text

SUFFIXES: Final = (".json", ".json.gz")
NO_TIME: Final = (
    "does not say when it was polled: neither its name (as 20250717T001500Z-race.json would) nor its "
    "header.generated_time has an instant with a time zone; rename it"
)


class UnreadableFileError(Exception):
    """A file's race cannot be read; the text says why."""


@dataclass(frozen=True)
class Day:
    """The polls of a day, race by race.

    Attributes:
        chains: race id -> its polls in the order of their instants (then of their names).
        unread: the files that are no polls.
    """

    chains: Mapping[str, tuple[CapturedPoll, ...]]
    unread: tuple[UnreadFile, ...]

    @property
    def poll_count(self) -> int:
        """How many polls there are."""
        return sum(map(len, self.chains.values()))

    @property
    def fingerprint(self) -> str:
        """A hash of the polls, their order and the version of racepool; not of the paths of the files."""
        digest = sha256(VERSION.encode())
        for race_id, polls in sorted(self.chains.items()):
            for poll in polls:
                digest.update(f"{race_id}\n{poll.polled_at.timestamp()!r}\n{poll.digest}\n".encode())
        return digest.hexdigest()

    def of_races(self, names: Iterable[str]) -> "Day":
        """The day with these races only; `unread` stays whole.

        Args:
            names: each is the beginning of a race's id, or its number, such as R7.

        Raises:
            KeyError: no race has this name.
        """
        chosen: set[str] = set()
        for name in names:
            found = {race_id for race_id, polls in self.chains.items() if _is_called(name, polls[-1])}
            if not found:
                raise KeyError(name)
            chosen |= found
        return Day({race_id: polls for race_id, polls in self.chains.items() if race_id in chosen}, self.unread)


def poll_files(paths: Iterable[Path]) -> list[Path]:
    """The given files, and all polls in and below the given folders; each file once, sorted by path.

    Raises:
        PoolError: a folder cannot be read.
    """
    found = {path.resolve(): path for given in paths for path in _files_of(given)}
    return sorted(found.values())


def read_day(files: Iterable[Path], limit_bytes: int, advance: Callable[[], None]) -> Day:
    """Reads the head of each poll.

    Args:
        files: the polls, in any order.
        limit_bytes: the maximum size of a race, uncompressed.
        advance: called after each file.
    """
    chains: dict[str, list[CapturedPoll]] = {}
    unread: list[UnreadFile] = []
    for path in files:
        try:
            poll = _poll_in(path, limit_bytes)
        except (UnreadableFileError, InvalidRaceError) as error:
            unread.append(UnreadFile(path, str(error)))
        else:
            chains.setdefault(poll.race_id, []).append(poll)
        advance()
    ordered = {
        race_id: tuple(sorted(polls, key=lambda poll: (poll.polled_at, poll.path))) for race_id, polls in chains.items()
    }
    return Day(ordered, tuple(unread))


def body_of(poll: CapturedPoll, limit_bytes: int) -> bytes:
    """The race's JSON, the same as when the day was read.

    Raises:
        UnreadableFileError: it cannot be read, is larger than the limit, or has changed since.
    """
    body = body_in(poll.path, limit_bytes)
    if sha256(body).hexdigest() != poll.digest:
        raise UnreadableFileError(
            "has changed since the replay began; replay the day again when its files are complete"
        )
    return body


def body_in(path: Path, limit_bytes: int) -> bytes:
    """The race's JSON, uncompressed.

    Raises:
        UnreadableFileError: it cannot be read, or is larger than the limit.
        InvalidRaceError: it is no whole gzip file, is too large when it is unpacked, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            body = file.read(limit_bytes + 1)
    except OSError as error:
        raise UnreadableFileError(error.strerror) from None
    if len(body) > limit_bytes:
        raise UnreadableFileError(f"is larger than {limit_bytes:,} bytes; raise RACEPOOL_PAYLOAD_LIMIT")
    return json_text(body, limit_bytes)


def _poll_in(path: Path, limit_bytes: int) -> CapturedPoll:
    body = body_in(path, limit_bytes)
    head = head_of(body)
    polled_at = instant_in(path.name) or head.generated_at
    if polled_at is None:
        raise UnreadableFileError(NO_TIME)
    return CapturedPoll(path, head.race_id, head.race_number, polled_at, sha256(body).hexdigest())


def _files_of(given: Path) -> Iterator[Path]:
    if not given.is_dir():
        yield given
        return
    for folder, _, names in os.walk(given, onerror=_refuse):
        yield from (Path(folder, name) for name in names if name.endswith(SUFFIXES))


def _refuse(error: OSError) -> None:
    raise PoolError(f"{error.filename}: {error.strerror}; make it readable, or name the folders and files that are")


def _is_called(name: str, poll: CapturedPoll) -> bool:
    return poll.race_id.startswith(name) or (poll.race_number is not None and name.upper() == f"R{poll.race_number}")
