"""Keys of tcp endpoints: reads them from the key directory, and checks who may read their files. Shows no secret.

The key directory (RACEPOOL_KEYS) holds pairs of files in the certificate format of zmq.auth: `NAME.key`, the public
half, and `NAME.key_secret`, which never leaves this host. The pair of the broker is named `broker`; other hosts have
its public half only. The pair of a peer is named by its role, `client` or `worker`. On the broker's host,
`allowed/ROLE/NAME.key` are the keys of the peers that the broker lets in.
"""

import os
import re
import stat
from enum import StrEnum
from pathlib import Path

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from racepool.protocol import own_directory
from racepool.protocol.endpoints import is_tcp
from racepool.protocol.errors import SettingsError
from racepool.protocol.settings import Settings, refuse_foreign_directory, variable
from racepool.protocol.sockets import KeyPair, PeerKeys

ALLOWED = "allowed"
BROKER = "broker"
KEY_CHARS = 40
PUBLIC, SECRET = ".key", ".key_secret"

_Z85 = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


class Role(StrEnum):
    """Which sockets a key opens. Client: frontend and stats. Worker: backend and heartbeat. Monitor: stats only."""

    CLIENT = "client"
    WORKER = "worker"
    MONITOR = "monitor"


def peer_keys(settings: Settings, role: Role, *endpoints: str) -> PeerKeys | None:
    """The keys that a peer needs to connect to these endpoints; None if none of them needs keys.

    Raises:
        SettingsError: a file is missing or broken, or others may read it; names the file and the remedy.
    """
    directory = _needed(settings, endpoints)
    if directory is None:
        return None
    brokers = directory / f"{BROKER}{PUBLIC}"
    own_directory.refuse_replaceable(str(brokers), brokers)  # it may be a link
    return PeerKeys(_pair(directory, role), public_key(brokers, _copy_it(directory)))


def broker_keys(settings: Settings) -> KeyPair | None:
    """The broker's own pair; None if none of its endpoints needs keys.

    Raises:
        SettingsError: as for `peer_keys`.
    """
    directory = _needed(settings, settings.endpoints())
    return None if directory is None else _pair(directory, BROKER)


def key_directory(settings: Settings) -> Path:
    """The key directory, after checking that it exists and that only this user may enter it.

    Raises:
        SettingsError: it is not set, does not exist, is not ours, or others may enter it.
    """
    if settings.keys is None:
        raise SettingsError(f"{variable('keys')} is not set; set it to a directory for keys, /etc/racepool/keys say")
    if not settings.keys.exists():
        raise SettingsError(f"{variable('keys')}={settings.keys}: is not there; make it with `racepool keygen`")
    refuse_foreign_directory("keys", settings.keys)
    return settings.keys


def public_key(path: Path, remedy: str) -> bytes:
    """The key in the file of a public half.

    Raises:
        SettingsError: the file is missing or broken, or holds a secret. If it is missing, the text ends with `remedy`.
    """
    public, secret = _certificate(path, remedy)
    if secret is not None:
        raise SettingsError(f"{path}: holds a secret key, which never leaves its host; take the file that ends in .key")
    return public


def checked_key(key: bytes) -> bytes:
    """The key, if it is one.

    Raises:
        ValueError: it is not 40 characters of Z85.
    """
    try:
        if _Z85.fullmatch(key) and len(z85.decode(key)) == 32:
            return key
    except Exception:  # noqa: BLE001, S110  # the decoder raises several types for characters that are no number
        pass
    raise ValueError(f"a key has {KEY_CHARS} characters of Z85")


def _needed(settings: Settings, endpoints: tuple[str, ...] | list[str]) -> Path | None:
    is_needed = settings.keys is not None and any(map(is_tcp, endpoints))
    return key_directory(settings) if is_needed else None


def _pair(directory: Path, name: str) -> KeyPair:
    path = directory / f"{name}{SECRET}"
    _refuse_open_secret(path)
    public, secret = _certificate(path, f"make it with `racepool keygen {name}`")
    if secret is None or not _belong_together(public, secret):
        raise SettingsError(f"{path}: is broken; make another with `racepool keygen {name} --force`")
    return KeyPair(public, secret)


def _belong_together(public: bytes, secret: bytes) -> bool:
    try:
        return zmq.curve_public(checked_key(secret)) == public
    except (ValueError, zmq.ZMQError):
        return False


def _refuse_open_secret(path: Path) -> None:
    own_directory.refuse_replaceable(str(path), path)
    try:
        status = path.stat()
    except OSError:
        return  # `_certificate` reads the same file, and raises with the remedy
    if status.st_uid != os.getuid():
        raise SettingsError(f"{path}: belongs to user {status.st_uid}, we are {os.getuid()}; chown it, or make another")
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise SettingsError(f"{path}: others may read it; chmod 600 it, and replace the key if they could reach it")


def _certificate(path: Path, remedy: str) -> tuple[bytes, bytes | None]:
    try:
        public, secret = load_certificate(path)
        return checked_key(public), secret
    except OSError as error:
        reason = "cannot be read" if path.exists() else "is not there"
        raise SettingsError(f"{path}: {reason}; {remedy}") from error
    except (ValueError, IndexError):  # not `from error`: its text could show a secret
        raise SettingsError(f"{path}: is no key file; {remedy}") from None


def _copy_it(directory: Path) -> str:
    return f"copy {BROKER}{PUBLIC} from the broker's key directory to {directory}"
