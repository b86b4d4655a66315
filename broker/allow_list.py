"""Which keys may come in, and by which of the broker's sockets: what the key directory says at present."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from protocol.errors import SettingsError
from protocol.keys import ALLOWED, PUBLIC, Role, public_key

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


Versions: TypeAlias = Mapping[Path, tuple[int, int, int]]


class AllowList:
    """The files `allowed/ROLE/NAME.key`, as they were at the last look.

    A file that cannot be read lets nobody in, and is named in `broken`; the others stand.
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
        """Whether nobody may come in."""
        return not self._entries

    def name_of(self, domain: str, key: str | None) -> str | None:
        """Under which name this key opens this socket; None if it does not."""
        return None if key is None else self._keys[domain].get(key)

    def names_of(self, key: str) -> list[str]:
        """Under which names the key is known for any socket."""
        return sorted({entry.name for entry in self._entries if entry.key == key})

    def refresh(self) -> tuple[frozenset[Entry], frozenset[Entry]] | None:
        """Looks again; gives what is new and what is no more, or None if no file has changed."""
        versions = self._look()
        if versions == self._versions:
            return None
        before, self._versions = self._entries, versions
        self._entries = self._read(versions)
        for domain, roles in OPENS.items():
            self._keys[domain] = {entry.key: entry.name for entry in self._entries if entry.role in roles}
        return self._entries - before, before - self._entries

    def _look(self) -> Versions:
        """The present files, each with what changes when it is written or replaced."""
        paths = [path for role in Role for path in (self._directory / role).glob(f"*{PUBLIC}")]
        versions = {}
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue  # removed since, or a link to nowhere
            versions[path] = (status.st_mtime_ns, status.st_ino, status.st_size)
        return versions

    def _read(self, versions: Versions) -> frozenset[Entry]:
        entries = set()
        self.broken = {}
        for path in versions:
            try:
                key = public_key(path, "allow it again with `racepool keys allow`")
            except SettingsError as error:
                self.broken[path] = str(error)
            else:
                entries.add(Entry(Role(path.parent.name), path.name.removesuffix(PUBLIC), key.decode()))
        return frozenset(entries)
