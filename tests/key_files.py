"""Key directories and free tcp endpoints for tests."""

from contextlib import ExitStack
from pathlib import Path
from socket import socket as kernel_socket

import zmq

from racepool.protocol.endpoints import SOCKETS
from racepool.protocol.keys import ALLOWED, BROKER, Role
from racepool.protocol.sockets import KeyPair, PeerKeys

HOST = "127.0.0.1"


def key_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


def write_key(path: Path, public: bytes, secret: bytes | None = None) -> None:
    """A certificate as zmq.auth reads it, for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    text = f'metadata\ncurve\n    public-key = "{public.decode()}"\n'
    path.write_text(text + (f'    secret-key = "{secret.decode()}"\n' if secret else ""))


def write_pair(directory: Path, name: str, pair: KeyPair) -> None:
    write_key(directory / f"{name}.key", pair.public)
    write_key(directory / f"{name}.key_secret", pair.public, pair.secret)


def allowed_file(directory: Path, role: str, name: str) -> Path:
    return directory / ALLOWED / role / f"{name}.key"


def allow(directory: Path, role: str, name: str, pair: KeyPair) -> None:
    write_key(allowed_file(directory, role, name), pair.public)


class Keyring:
    """A broker's key directory, and the keys that it lets in."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.broker = key_pair()
        self.secrets = [self.broker.secret]
        directory.mkdir(mode=0o700, exist_ok=True)
        write_pair(directory, BROKER, self.broker)

    def admit(self, role: Role, name: str) -> PeerKeys:
        """A new peer's keys; the broker lets it in."""
        keys = self.stranger()
        allow(self.dir, role, name, keys.own)
        return keys

    def stranger(self) -> PeerKeys:
        """The keys of somebody who knows the broker, and whom the broker does not know."""
        pair = key_pair()
        self.secrets.append(pair.secret)
        return PeerKeys(pair, self.broker.public)

    def dismiss(self, role: Role, name: str) -> None:
        allowed_file(self.dir, role, name).unlink()

    def host(self, directory: Path, **peers: PeerKeys) -> Path:
        """Another host's key directory, with these pairs of its own."""
        directory.mkdir(mode=0o700)
        write_key(directory / f"{BROKER}.key", self.broker.public)
        for name, keys in peers.items():
            write_pair(directory, name, keys.own)
        return directory


def tcp_endpoints(host: str = HOST) -> dict[str, str]:
    """Four that nobody uses at the moment, by setting."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(kernel_socket()) for _ in SOCKETS]
        for each in sockets:
            each.bind((HOST, 0))
        ports = [each.getsockname()[1] for each in sockets]
    return {setting: f"tcp://{host}:{port}" for setting, port in zip(SOCKETS, ports, strict=True)}
