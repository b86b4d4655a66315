"""Directories that no other user can replace. Needs no pydantic, so that small programs can use it.

A directory of mode 0700 is not enough. A user who may write into a folder above it can move that folder away, and put
another one in its place, at any instant after a check. So each part of the path has to belong to us or to root, and
other users must not be able to write to it. One exception is a folder like /tmp, with the sticky bit: there a user can
only replace what is their own. The check begins at the root, so nobody else can change a part that was checked.

A path may still lead elsewhere later: root may remove the directory (cleaners of /tmp do), and then another user can
make one with the same name. So sockets and logs are reached through a descriptor of the directory, see `opened`.
"""

import grp
import os
import pwd
import stat
from collections import deque
from contextlib import suppress
from pathlib import Path

from racepool.protocol.errors import SettingsError

ROOT_ID = 0
MAX_LINKS = 40  # as the kernel has it
OPEN_TO_GROUP, OPEN_TO_ALL = stat.S_IWGRP, stat.S_IWOTH
UIDS = Path("/proc/self/uid_map")  # which users are in our user namespace
ACCESS_LIST = "system.posix_acl_access"


def make(label: str, directory: Path) -> None:
    """Makes a directory for this user alone, and all parts of its path that are missing, unless it exists.

    Args:
        label: the setting and its value, for errors.
        directory: an absolute path.

    Raises:
        SettingsError: it cannot be made, or another user could replace it.
    """
    refuse_replaceable(label, directory)
    try:
        for part in reversed(directory.parents):
            if not part.exists():
                part.mkdir(mode=0o755, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{label}: cannot be made ({error.strerror}); choose another") from None
    refuse_open(label, directory)


def refuse_open(label: str, directory: Path) -> None:
    """Refuses a directory that is not for this user alone, or that another user could replace.

    Args:
        label: the setting and its value, for the error.
        directory: an absolute path.

    Raises:
        SettingsError: it is not ours, or others may enter it; it is a link, or not there; or as `refuse_replaceable`.
    """
    refuse_replaceable(label, directory)
    try:
        status = directory.lstat()
    except OSError as error:
        raise SettingsError(f"{label}: cannot be looked at ({error.strerror}); choose another") from None
    if not stat.S_ISDIR(status.st_mode):
        raise SettingsError(f"{label}: is no directory; choose another")
    if status.st_uid != os.getuid():
        raise SettingsError(f"{label}: {_belongs_to(status.st_uid)}; choose another")
    if status.st_mode & 0o077:
        raise SettingsError(f"{label}: others may enter it; chmod 700 it or choose another")


def refuse_replaceable(label: str, path: Path) -> None:
    """Refuses a path if a user other than root could put something else in its place. Parts that are missing may be.

    Args:
        label: the setting and its value, for the error.
        path: an absolute path.

    Raises:
        SettingsError: names the part of the path that another user owns or may write to.
    """
    at, links, parts = Path("/"), 0, deque(path.parts)
    while parts:
        name = parts.popleft()
        at = at.parent if name == ".." else at / name
        try:
            status = at.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise SettingsError(f"{label}: {at} cannot be looked at ({error.strerror}); choose another") from None
        _refuse_part(label, at, status, is_last=not parts)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MAX_LINKS:
                raise SettingsError(f"{label}: has too many links; choose another")
            target = at.readlink()
            at = at.parent
            parts.extendleft(reversed(target.parts))


def _refuse_part(label: str, part: Path, status: os.stat_result, *, is_last: bool) -> None:
    if not _is_trusted(status.st_uid):
        if is_last:
            raise SettingsError(f"{label}: {_belongs_to(status.st_uid)}; choose another")
        raise SettingsError(
            f"{label}: {part} {_belongs_to(status.st_uid)}, and that user could put another directory there; choose "
            "one below folders of our own or of root"
        )
    if stat.S_ISDIR(status.st_mode) and not is_last and not status.st_mode & stat.S_ISVTX and is_open(part, status):
        raise SettingsError(
            f"{label}: other users may write to {part}, and could put another directory there; chmod go-w {part}, or "
            "choose another"
        )


def _belongs_to(user: int) -> str:
    return f"belongs to user {user}, we are {os.getuid()}"


def _is_trusted(user: int) -> bool:
    """Whether this user may replace our directory. Root may do everything anyway."""
    return user in (ROOT_ID, os.getuid()) or user == _user_outside()


def _user_outside() -> int | None:
    """The number that stands for all users who are not in our user namespace; None if no user stands outside.

    A container's folders that come from its host look so. Who made the container has chosen them.
    """
    try:
        nobody = int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
        ranges = [line.split() for line in UIDS.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return None
    is_inside = any(int(first) <= nobody < int(first) + int(count) for first, _, count in ranges)
    return None if is_inside else nobody


def is_open(path: Path, status: os.stat_result) -> bool:
    """Whether a user other than we and root may write there, by its mode, its group or its access list."""
    if status.st_mode & OPEN_TO_ALL:
        return True
    return bool(status.st_mode & OPEN_TO_GROUP) and not (_is_group_of_one(status.st_gid) and not _has_list(path))


def _is_group_of_one(number: int) -> bool:
    """Whether it is the group of root, or our own as many systems make one for each user, and has no other member."""
    try:
        us = pwd.getpwuid(os.getuid())
        names = {ROOT_ID: "root", us.pw_gid: us.pw_name}
        group = grp.getgrgid(number)
    except KeyError:
        return number == ROOT_ID  # in a container, users and groups often have no names
    is_ours = group.gr_name == names.get(number)
    return is_ours and set(group.gr_mem) <= {"root", us.pw_name}


def _has_list(path: Path) -> bool:
    """Whether the path has an access list: then the group's part of the mode holds for the users of the list."""
    with suppress(OSError):
        return bool(os.getxattr(path, ACCESS_LIST))
    return False


def opened(label: str, directory: Path) -> int:
    """A descriptor of this very directory: what is reached through it is ours, whatever takes its place later.

    Args:
        label: the setting and its value, for errors.
        directory: an absolute path.

    Raises:
        SettingsError: another user could replace the directory, or can make files in it.
        OSError: it does not exist, or no descriptor is left.
    """
    refuse_replaceable(label, directory)
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise SettingsError(f"{label}: {directory} is no directory; choose another") from None
    status = os.fstat(descriptor)
    if _is_trusted(status.st_uid) and not is_open(directory, status):
        return descriptor
    os.close(descriptor)
    raise SettingsError(f"{label}: other users may write to {directory}; choose another")
