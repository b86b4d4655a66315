import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from racepool.protocol.errors import SettingsError
from racepool.protocol.keys import Role, broker_keys, checked_key, peer_keys, public_key
from racepool.protocol.settings import Settings
from tests.key_files import Keyring, key_pair, tcp_endpoints, write_pair

TCP = "tcp://broker.example.org:7000"
IPC = "ipc:///run/racepool/frontend.ipc"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rp-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def ring(folder: Path) -> Keyring:
    return Keyring(folder / "broker")


@pytest.fixture
def host(folder: Path, ring: Keyring) -> Path:
    """The key directory of a client's host."""
    return ring.host(folder / "host", client=ring.stranger())


def settings(keys: Path, endpoint: str = TCP) -> Settings:
    return Settings.load(keys=keys, endpoint=endpoint)


def refusal(keys: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        peer_keys(settings(keys), Role.CLIENT, TCP)
    return str(caught.value)


def test_keys_are_those_of_the_files(folder: Path, ring: Keyring) -> None:
    client, worker = ring.stranger(), ring.stranger()
    keys = ring.host(folder / "host", client=client, worker=worker)

    assert peer_keys(settings(keys), Role.CLIENT, TCP) == client
    assert peer_keys(settings(keys), Role.WORKER, IPC, TCP) == worker
    assert broker_keys(Settings.load(keys=ring.dir, **tcp_endpoints())) == ring.broker


def test_no_key_is_looked_at_without_a_tcp_endpoint(folder: Path) -> None:
    """Over ipc, the private run directory protects the sockets."""
    assert peer_keys(settings(folder / "nowhere"), Role.CLIENT, IPC) is None
    assert peer_keys(Settings.load(), Role.CLIENT, "tcp://127.0.0.1:1") is None
    assert broker_keys(Settings.load(keys=folder / "nowhere")) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_secret_that_others_may_read_is_refused(host: Path, mode: int) -> None:
    (host / "client.key_secret").chmod(mode)

    assert refusal(host).startswith(f"{host}/client.key_secret: others may read it; chmod 600 it")


def test_secret_may_be_closed_to_its_owners_pen(host: Path) -> None:
    (host / "client.key_secret").chmod(0o400)

    assert peer_keys(settings(host), Role.CLIENT, TCP)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a file away")
def test_secret_of_another_user_is_refused(host: Path) -> None:
    os.chown(host / "client.key_secret", 65_534, 65_534)

    assert refusal(host).startswith(f"{host}/client.key_secret: belongs to user 65534, we are 0;")


@pytest.mark.parametrize("name", ["client.key_secret", "broker.key"])
def test_key_behind_a_link_that_another_user_could_replace_is_refused(host: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    (host / name).rename(folder / name)
    (host / name).symlink_to(folder / name)
    assert peer_keys(settings(host), Role.CLIENT, TCP)  # a link of ours to a file of ours may be

    folder.chmod(0o777)

    assert refusal(host).startswith(f"{host}/{name}: other users may write to {folder}, and could put another")


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_key_directory_that_others_may_enter_is_refused(host: Path, mode: int) -> None:
    host.chmod(mode)

    assert refusal(host) == f"RACEPOOL_KEYS={host}: others may enter it; chmod 700 it or choose another"


def test_key_directory_behind_a_link_is_refused(host: Path) -> None:
    link = host.with_name("link")
    link.symlink_to(host)

    assert refusal(link) == f"RACEPOOL_KEYS={link}: is no directory; choose another"


def test_missing_files_are_named_with_the_remedy(host: Path) -> None:
    assert "make it with `racepool keygen`" in refusal(host / "nowhere")

    (host / "broker.key").unlink()
    assert refusal(host) == (
        f"{host}/broker.key: is not there; copy broker.key from the broker's key directory to {host}"
    )

    (host / "client.key_secret").unlink()
    assert refusal(host) == f"{host}/client.key_secret: is not there; make it with `racepool keygen client`"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "public-key",
        'public-key = "short"',
        'public-key = "' + "~" * 40 + '"',
        'public-key = "' + "#" * 40 + '"',
        "\0" * 100,
    ],
)
def test_broken_key_of_the_broker_is_named(host: Path, text: str) -> None:
    (host / "broker.key").write_text(text)

    assert refusal(host).startswith(f"{host}/broker.key: is no key file; copy broker.key")


def test_secret_in_the_place_of_a_public_key_is_refused(host: Path, ring: Keyring) -> None:
    shutil.copy(ring.dir / "broker.key_secret", host / "broker.key")

    message = refusal(host)

    assert "holds a secret key, which never leaves its host" in message
    assert ring.broker.secret.decode() not in message


def test_pair_whose_halves_do_not_belong_together_is_refused(host: Path) -> None:
    one, other = key_pair(), key_pair()
    (host / "client.key_secret").unlink()
    write_pair(host, "client", type(one)(one.public, other.secret))

    message = refusal(host)

    assert message == f"{host}/client.key_secret: is broken; make another with `racepool keygen client --force`"


def test_public_half_is_no_pair(host: Path) -> None:
    shutil.copy(host / "client.key", host / "client.key_secret")

    assert "is broken" in refusal(host)


def test_secret_is_not_shown(host: Path) -> None:
    keys = peer_keys(settings(host), Role.CLIENT, TCP)

    assert keys is not None
    assert keys.own.secret.decode() not in repr(keys) + str(keys) + repr(settings(host))
    assert keys.own.public.decode() in repr(keys)


def test_key_is_forty_characters_of_z85() -> None:
    key = key_pair().public

    assert checked_key(key) == key
    for broken in (key[:-1], key + b"a", b'"' + key[1:], b"#" * 40, b""):
        with pytest.raises(ValueError, match="40 characters"):
            checked_key(broken)


def test_unreadable_file_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read; do this"):
        public_key(folder, "do this")
