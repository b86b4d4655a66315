"""Directories that another user could replace. Most tests need a second user, so they need root."""

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from racepool.protocol import own_directory
from racepool.protocol.errors import SettingsError

STRANGER = 65_534
ACCESS_LIST_VERSION, USER_OBJECT, USER, GROUP_OBJECT, MASK, OTHERS = 2, 1, 2, 4, 16, 32
NOBODY_IN_PARTICULAR = 2**32 - 1

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives a directory away")


def open_to_all(folder: Path) -> Path:
    folder.chmod(0o777)
    return folder / "run"


def open_to_a_group(folder: Path) -> Path:
    os.chown(folder, 0, STRANGER)
    folder.chmod(0o775)
    return folder / "run"


def open_to_a_user_of_its_access_list(folder: Path) -> Path:
    folder.chmod(0o755)
    entries = [
        (USER_OBJECT, 7, NOBODY_IN_PARTICULAR),
        (USER, 7, STRANGER),
        (GROUP_OBJECT, 5, NOBODY_IN_PARTICULAR),
        (MASK, 7, NOBODY_IN_PARTICULAR),
        (OTHERS, 5, NOBODY_IN_PARTICULAR),
    ]
    packed = struct.pack("<I", ACCESS_LIST_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(folder, own_directory.ACCESS_LIST, packed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error.strerror}")
    return folder / "run"


def of_a_stranger(folder: Path) -> Path:
    os.chown(folder, STRANGER, STRANGER)
    return folder / "run"


def sticky_but_of_a_stranger(folder: Path) -> Path:
    """The owner of a folder may replace all that is in it, with the sticky bit, too."""
    folder.chmod(0o1777)
    return of_a_stranger(folder)


def far_below_a_folder_of_a_stranger(folder: Path) -> Path:
    (folder / "a" / "b").mkdir(parents=True)
    return of_a_stranger(folder).with_name("a") / "b" / "run"


def behind_a_link_of_a_stranger(folder: Path) -> Path:
    folder.chmod(0o1777)
    (folder / "ours").mkdir(mode=0o700)
    link = folder / "link"
    link.symlink_to("ours")
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    return link / "run"


def behind_our_link_to_an_open_folder(folder: Path) -> Path:
    (folder / "open").mkdir()
    link = folder / "link"
    link.symlink_to(folder / "open" / "deep")
    (folder / "open").chmod(0o777)
    (folder / "open" / "deep").mkdir()
    return link / "run"


def behind_a_way_up_from_a_link(folder: Path) -> Path:
    """`link/../run` is beside the link's target, and not beside the link."""
    behind_our_link_to_an_open_folder(folder)
    return folder / "link" / ".." / "run"


OPEN: list[Callable[[Path], Path]] = [
    open_to_all,
    open_to_a_group,
    open_to_a_user_of_its_access_list,
    of_a_stranger,
    sticky_but_of_a_stranger,
    far_below_a_folder_of_a_stranger,
    behind_a_link_of_a_stranger,
    behind_our_link_to_an_open_folder,
    behind_a_way_up_from_a_link,
]


@needs_root
@pytest.mark.parametrize("placed", OPEN)
def test_directory_that_another_user_could_replace_is_refused(placed: Callable[[Path], Path], tmp_path: Path) -> None:
    directory = placed(tmp_path)
    refusal = "belongs to user 65534|other users may write to"

    with pytest.raises(SettingsError, match=f"^RACEPOOL_DIR=x: (?=.*{tmp_path}).*({refusal}).*choose"):
        own_directory.make("RACEPOOL_DIR=x", directory)

    assert not directory.exists()
    directory.mkdir(mode=0o700)
    for refuse in (own_directory.make, own_directory.refuse_open, own_directory.opened):
        with pytest.raises(SettingsError, match=refusal):
            refuse("RACEPOOL_DIR=x", directory)


def test_directory_of_a_stranger_in_a_sticky_folder_is_refused(tmp_path: Path) -> None:
    """In /tmp anybody may make a directory with our name first."""
    tmp_path.chmod(0o1777)
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    if os.getuid() != 0:
        pytest.skip("only root gives a directory away")
    os.chown(directory, STRANGER, STRANGER)

    for refuse in (own_directory.make, own_directory.refuse_open, own_directory.opened):
        with pytest.raises(SettingsError, match=r"^x: belongs to user 65534, we are 0; choose another$"):
            refuse("x", directory)


def in_a_sticky_folder(folder: Path) -> Path:
    folder.chmod(0o1777)
    return folder / "run"


def behind_a_link_of_ours(folder: Path) -> Path:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    return folder / "link" / "run"


def below_several_that_are_missing(folder: Path) -> Path:
    return folder / "a" / "b" / "run"


def below_a_folder_that_our_own_group_may_write(folder: Path) -> Path:
    """As many systems make home directories: each user has a group without other members."""
    if not own_directory._is_group_of_one(os.getgid()):
        pytest.skip("our group has other members")
    folder.chmod(0o775)
    return folder / "run"


@pytest.mark.parametrize(
    "placed",
    [
        in_a_sticky_folder,
        behind_a_link_of_ours,
        below_several_that_are_missing,
        below_a_folder_that_our_own_group_may_write,
    ],
)
def test_directory_that_nobody_else_can_replace_is_made_and_opened(
    placed: Callable[[Path], Path], tmp_path: Path
) -> None:
    directory = placed(tmp_path)
    before = os.umask(0)
    try:
        own_directory.make("x", directory)
    finally:
        os.umask(before)

    os.close(own_directory.opened("x", directory))

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    made = [part for part in directory.parents if part.is_relative_to(tmp_path) and part != tmp_path]
    assert all(part.stat().st_mode & 0o022 == 0 for part in made)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_directory_in_which_others_may_make_sockets_is_not_opened(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)

    with pytest.raises(SettingsError, match=f"^x: other users may write to {tmp_path}; choose another"):
        own_directory.opened("x", tmp_path)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")

    with pytest.raises(SettingsError, match="too many links"):
        own_directory.make("x", tmp_path / "link" / "run")


@needs_root
def test_whoever_made_our_user_namespace_is_trusted_and_no_user_inside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, folders of its host belong to the user who stands for all users outside."""
    directory = of_a_stranger(tmp_path)
    for ranges, is_outside in (("0 100000 65534", True), ("0 0 4294967295", False), ("0 1000 1\n65534 7 1", False)):
        monkeypatch.setattr(own_directory, "UIDS", tmp_path / "uid_map")
        (tmp_path / "uid_map").write_text(ranges)
        if is_outside:
            own_directory.make("x", directory)
        else:
            with pytest.raises(SettingsError, match="belongs to user 65534"):
                own_directory.refuse_open("x", directory)
