"""`racepool keygen` and `racepool keys`, as typed."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from racepool.commands.group import main
from racepool.protocol.keys import Role, broker_keys, peer_keys, public_key
from racepool.protocol.settings import Settings
from tests.key_files import allowed_file, key_pair, tcp_endpoints, write_key

Racepool = Callable[..., Result]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RACEPOOL_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def racepool() -> Iterator[Racepool]:
    before = os.umask(0o022)
    yield lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
    os.umask(before)


@pytest.fixture
def visitor(tmp_path: Path) -> Path:
    """A file with the public key of another host's client."""
    write_key(tmp_path / "client.key", key_pair().public)
    return tmp_path / "client.key"


def secrets_in(directory: Path) -> list[str]:
    texts = [path.read_text() for path in directory.glob("*.key_secret")]
    return [text.partition('secret-key = "')[2].partition('"')[0] for text in texts]


def listed(racepool: Racepool) -> list[tuple[str, str]]:
    lines = racepool("keys", "list").stdout.splitlines()
    return [(name, role) for name, role, _ in (line.split("\t") for line in lines)]


def test_keygen_makes_what_a_pool_on_one_host_needs(keys: Path, racepool: Racepool) -> None:
    done = racepool("keygen")

    assert done.exit_code == 0, done.output
    settings = Settings.load(**tcp_endpoints())
    broker = broker_keys(settings)
    assert broker is not None
    for role in (Role.CLIENT, Role.WORKER):
        own = peer_keys(settings, role, settings.endpoint)
        assert own is not None
        assert own.broker == broker.public
        assert public_key(allowed_file(keys, role, "local"), "") == own.own.public
    assert listed(racepool) == [("local", "client"), ("local", "worker")]


def test_all_files_are_for_their_owner_alone(keys: Path, racepool: Racepool, visitor: Path) -> None:
    racepool("keygen")
    racepool("keys", "allow", visitor, "--as", "web", "--role", "client")

    made = [keys, *keys.rglob("*")]
    assert len(made) >= 12
    assert [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_secrets_are_never_printed(keys: Path, racepool: Racepool, visitor: Path) -> None:
    outputs = [racepool("keygen"), racepool("keygen"), racepool("keygen", "--force")]
    outputs += [racepool("keys", "list"), racepool("config"), racepool("config", "--json")]
    outputs.append(racepool("keys", "allow", keys / "client.key_secret", "--as", "x", "--role", "client"))
    outputs.append(racepool("keys", "allow", visitor, "--as", "web", "--role", "client"))
    outputs.append(racepool("keys", "revoke", "web"))

    shown = "".join(done.output + str(done.exception) for done in outputs)
    assert "client.key_secret" in shown
    assert len(secrets_in(keys)) == 3
    assert [secret for secret in secrets_in(keys) if secret in shown] == []


def test_keygen_replaces_nothing_unless_forced(keys: Path, racepool: Racepool) -> None:
    racepool("keygen")
    before = secrets_in(keys)

    refused = racepool("keygen", "client")
    assert refused.exit_code == 1
    assert "has a pair of client already; --force replaces it" in refused.output
    (keys / "worker.key_secret").unlink()
    assert racepool("keygen", "worker").exit_code == 1  # half a pair is refused like a pair
    assert set(secrets_in(keys)) < set(before)

    assert racepool("keygen", "--force").exit_code == 0
    assert len(secrets_in(keys)) == 3
    assert set(secrets_in(keys)) & set(before) == set()
    settings = Settings.load(**tcp_endpoints())
    own = peer_keys(settings, Role.CLIENT, settings.endpoint)
    assert own is not None
    assert public_key(allowed_file(keys, Role.CLIENT, "local"), "") == own.own.public


def test_public_half_never_stands_without_its_secret(keys: Path, racepool: Racepool) -> None:
    (keys / "client.key_secret").mkdir(parents=True)  # so that the secret half cannot be moved into place
    keys.chmod(0o700)

    assert isinstance(racepool("keygen", "client", "--force").exception, OSError)

    assert sorted(path.name for path in keys.iterdir()) == ["client.key_secret"]


def test_other_hosts_make_their_own_pair_and_are_told_what_to_carry(keys: Path, racepool: Racepool) -> None:
    done = racepool("keygen", "client")

    assert sorted(path.name for path in keys.iterdir()) == ["client.key", "client.key_secret"]
    assert f"Copy broker.key from the broker's key directory to {keys}" in done.output
    assert "`racepool keys allow client.key --as NAME --role client`" in done.output


def test_file_or_key_is_allowed(keys: Path, racepool: Racepool, visitor: Path) -> None:
    key = public_key(visitor, "")
    other = key_pair().public

    assert racepool("keys", "allow", visitor, "--as", "web", "--role", "client").exit_code == 0
    assert racepool("keys", "allow", "--as", "mill-1", "--role", "worker", "--", other.decode()).exit_code == 0

    assert public_key(allowed_file(keys, Role.CLIENT, "web"), "") == key
    assert public_key(allowed_file(keys, Role.WORKER, "mill-1"), "") == other
    assert key.decode() in racepool("keys", "list").output


def test_what_is_no_key_is_refused_and_not_repeated(keys: Path, racepool: Racepool) -> None:
    racepool("keygen")

    for junk in ("junk", "x" * 41, "/nowhere/client.key"):
        done = racepool("keys", "allow", junk, "--as", "web", "--role", "client")
        assert done.exit_code == 2
        assert "neither a key file nor a key" in done.output
        assert junk not in done.output
    done = racepool("keys", "allow", keys / "client.key_secret", "--as", "web", "--role", "client")
    assert done.exit_code == 78
    assert "holds a secret key, which never leaves its host" in done.output
    assert listed(racepool) == [("local", "client"), ("local", "worker")]


@pytest.mark.parametrize("name", ["", "../web", "a/b", ".hidden", "a b", "x" * 65, "tab\t"])
def test_name_that_is_no_file_name_is_refused(keys: Path, racepool: Racepool, visitor: Path, name: str) -> None:
    assert racepool("keys", "allow", visitor, "--as", name, "--role", "client").exit_code == 2
    assert not list(keys.rglob("*.key"))


@pytest.mark.usefixtures("keys")
def test_name_and_key_are_of_one_peer(racepool: Racepool, visitor: Path, tmp_path: Path) -> None:
    write_key(tmp_path / "other.key", key_pair().public)
    racepool("keys", "allow", visitor, "--as", "web", "--role", "client")

    taken = racepool("keys", "allow", tmp_path / "other.key", "--as", "web", "--role", "client")
    twice = racepool("keys", "allow", visitor, "--as", "shop", "--role", "client")
    again = racepool("keys", "allow", visitor, "--as", "web", "--role", "client")
    both = racepool("keys", "allow", visitor, "--as", "web", "--role", "worker")

    assert (taken.exit_code, "another key is called web" in taken.output) == (1, True)
    assert (twice.exit_code, "allowed already, as web" in twice.output) == (1, True)
    assert (again.exit_code, both.exit_code) == (0, 0)
    assert listed(racepool) == [("web", "client"), ("web", "worker")]


def test_revoked_name_is_gone_from_all_roles(keys: Path, racepool: Racepool, visitor: Path) -> None:
    for role in Role:
        racepool("keys", "allow", visitor, "--as", "web", "--role", role)
    allowed_file(keys, Role.CLIENT, "broken").write_text("")
    assert ("broken", "client") in listed(racepool)

    assert racepool("keys", "revoke", "web").exit_code == 0
    assert racepool("keys", "revoke", "broken").exit_code == 0
    assert listed(racepool) == []
    unknown = racepool("keys", "revoke", "web")
    assert (unknown.exit_code, "no key is called web" in unknown.output) == (1, True)


def test_without_the_setting_it_is_named(racepool: Racepool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RACEPOOL_KEYS", raising=False)

    for command in (["keygen"], ["keys", "list"], ["keys", "revoke", "x"]):
        done = racepool(*command)
        assert (done.exit_code, "RACEPOOL_KEYS is not set" in done.output) == (78, True)


def test_directory_that_others_may_enter_gets_no_keys(keys: Path, racepool: Racepool) -> None:
    keys.mkdir(mode=0o755)

    done = racepool("keygen")

    assert (done.exit_code, "others may enter it; chmod 700" in done.output) == (78, True)
    assert list(keys.iterdir()) == []
