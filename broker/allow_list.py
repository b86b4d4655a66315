"""Which keys may connect to which of the broker's sockets, as the key directory says at present."""

import errno
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from racepool.protocol.errors import SettingsError
from racepool.protocol.keys import ALLOWED, PUBLIC, Role, public_key
from racepool.protocol.own_directory import refuse_replaceable

OPENS: Mapping[str, frozenset[Role]] = {
    "frontend": frozenset({Role.CLIENT}),
    "stats": frozenset({Role.CLIENT, Role.MONITOR}),
    "backend": frozenset({Role.WORKER}),
    "heartbeat": frozenset({Role.WORKER}),
}


class Entry(NamedTuple):
    """One key of the list."""

    role: Role
    name: str
    key: str


Versions: TypeAlias = Mapping[Path, tuple[int, int, int] | None]
"""By file: change time, inode, size. None stands for a folder that cannot be listed."""

TEMPORARY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of this process or machine, which say nothing about the file."""


class AllowList:
    """The files `allowed/ROLE/NAME.key`, as they were at the last look.

    A file that cannot be read allows nobody, and is named in `broken`; the other files count. While this process has
    no free descriptors or memory, the list stays as it was.
    """

    def __init__(self, directory: Path) -> None:
        self.broken: dict[Path, str] = {}
        self._directory = directory / ALLOWED
        self._versions: Versions | None = None
        self._entries: frozenset[Entry] = frozenset()
        self._keys: dict[str, dict[str, str]] = {domain: {} for domain in OPENS}
        self.refresh()

    @property
    def is_empty(self) -> bool:
        """Whether no key is allowed."""
        return not self._entries

    def name_of(self, domain: str, key: str | None) -> str | None:
        """The name under which this key is allowed at this socket; None if it is not."""
        return None if key is None else self._keys[domain].get(key)

    def names_of(self, key: str) -> list[str]:
        """All names under which this key is allowed at any socket."""
        return sorted({entry.name for entry in self._entries if entry.key == key})

    def refresh(self) -> tuple[frozenset[Entry], frozenset[Entry]] | None:
        """Looks again; returns the new entries and the removed ones, or None if no file has changed."""
        try:
            versions = self._look()
            if versions == self._versions:
                return None
            entries, broken = self._read(versions)
        except OSError:
            return None
        before, self._versions, self._entries, self.broken = self._entries, versions, entries, broken
        for domain, roles in OPENS.items():
            self._keys[domain] = {entry.key: entry.name for entry in self._entries if entry.role in roles}
        return self._entries - before, before - self._entries

    def _look(self) -> Versions:
        """The present files, each with values that change when it is written, replaced, or gets another owner.

        Raises:
            OSError: one of TEMPORARY.
        """
        versions: dict[Path, tuple[int, int, int] | None] = {}
        for folder in (self._directory / role for role in Role):
            try:
                paths = [path for path in folder.iterdir() if path.name.endswith(PUBLIC)]
            except FileNotFoundError:
                continue
            except OSError as error:
                _raise_if_temporary(error)
                versions[folder] = None
                continue
            for path in paths:
                with suppress(OSError):  # removed since, or a link to nowhere
                    status = path.stat()
                    versions[path] = (status.st_ctime_ns, status.st_ino, status.st_size)
        return versions

    @staticmethod
    def _read(versions: Versions) -> tuple[frozenset[Entry], dict[Path, str]]:
        entries, broken = set(), {}
        for path, version in versions.items():
            if version is None:
                broken[path] = f"{path}: cannot be listed, so no key in it counts; chmod 700 it"
                continue
            try:
                refuse_replaceable(str(path), path)
                key = public_key(path, "allow it again with `racepool keys allow`")
            except SettingsError as error:
                if isinstance(error.__cause__, OSError):
                    _raise_if_temporary(error.__cause__)
                broken[path] = str(error)
            else:
                entries.add(Entry(Role(path.parent.name), path.name.removesuffix(PUBLIC), key.decode()))
        return frozenset(entries), broken


def _raise_if_temporary(error: OSError) -> None:
    if error.errno in TEMPORARY:
        raise error
