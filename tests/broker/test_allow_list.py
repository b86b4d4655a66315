import errno
import os
from pathlib import Path

import pytest

from racepool.broker import allow_list
from racepool.broker.allow_list import AllowList
from racepool.protocol.errors import SettingsError
from racepool.protocol.keys import Role, public_key
from tests.key_files import Keyring, allowed_file


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def test_change_of_owner_or_mode_is_looked_at(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like a file that only root may read at first, and this user later; in the tests root may read all files."""
    key = ring.admit(Role.CLIENT, "web").own.public.decode()
    path, closed = allowed_file(ring.dir, Role.CLIENT, "web"), 0o600

    def read(at: Path, remedy: str) -> bytes:
        if at.stat().st_mode & 0o777 == closed:
            raise SettingsError(f"{at}: cannot be read; {remedy}") from PermissionError(errno.EACCES, "denied")
        return public_key(at, remedy)

    monkeypatch.setattr(allow_list, "public_key", read)
    allowed = AllowList(ring.dir)
    assert (allowed.name_of("frontend", key), list(allowed.broken)) == (None, [path])

    path.chmod(0o640)
    assert allowed.refresh() is not None
    assert (allowed.name_of("frontend", key), allowed.broken) == ("web", {})

    path.chmod(closed)
    assert allowed.refresh() is not None
    assert allowed.name_of("frontend", key) is None


@pytest.mark.parametrize("what", ["list", "read"])
def test_lack_of_descriptors_revokes_nobody_and_passes(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    web = ring.admit(Role.CLIENT, "web")
    allowed = AllowList(ring.dir)
    desk = ring.admit(Role.CLIENT, "desk")

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as lack:
        if what == "list":
            lack.setattr(Path, "iterdir", refuse)
        else:
            lack.setattr("racepool.protocol.keys.load_certificate", refuse)
        assert allowed.refresh() is None
        assert allowed.name_of("frontend", web.own.public.decode()) == "web"
        assert allowed.broken == {}

    assert allowed.refresh() is not None
    assert allowed.name_of("frontend", desk.own.public.decode()) == "desk"


def test_folder_that_cannot_be_listed_allows_nobody_and_is_named(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, mill = ring.admit(Role.CLIENT, "web"), ring.admit(Role.WORKER, "mill")
    folder, iterdir = allowed_file(ring.dir, Role.CLIENT, "web").parent, Path.iterdir

    def refuse(path: Path) -> object:
        if path == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    allowed = AllowList(ring.dir)

    assert allowed.name_of("frontend", web.own.public.decode()) is None
    assert allowed.name_of("backend", mill.own.public.decode()) == "mill"
    assert list(allowed.broken) == [folder]
