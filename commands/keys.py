"""`racepool keygen` and `racepool keys`: who may reach a broker over tcp. Prints public keys only."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from zmq.auth import create_certificates

from racepool.commands.narrow_table import Column, NarrowTable
from racepool.commands.output import say, screen_of_stdout
from racepool.protocol.errors import SettingsError
from racepool.protocol.keys import ALLOWED, BROKER, PUBLIC, SECRET, Role, checked_key, key_directory, public_key
from racepool.protocol.settings import Settings, made_private

LOCAL = "local"  # what the keys of the broker's own host are called
PEERS = (Role.CLIENT, Role.WORKER)
PAIRS = (BROKER, *PEERS)
NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}")
UNKNOWN = "FILE|KEY is neither a key file nor a key of 40 characters"
SOON = "a running broker knows it within two seconds"


def _directory() -> Path:
    """The key directory, which is made if it is not there. From here on, new files are for this user alone."""
    os.umask(0o077)
    settings = Settings.load()
    if settings.keys is not None:
        made_private("keys", settings.keys)
    return key_directory(settings)


@click.command()
@click.argument(
    "pairs", nargs=-1, metavar="[broker] [client] [worker]", type=click.Choice([str(name) for name in PAIRS])
)
@click.option("--force", is_flag=True, help="Replace pairs that are there; all who use them need the new ones.")
def keygen(pairs: Sequence[str], *, force: bool) -> None:
    """Make key pairs in RACEPOOL_KEYS: on the broker's host all three, elsewhere the client's or worker's own."""
    directory = _directory()
    wanted = list(dict.fromkeys(pairs)) or list(PAIRS)
    there = [name for name in wanted for end in (PUBLIC, SECRET) if (directory / f"{name}{end}").exists()]
    if there and not force:
        raise click.ClickException(
            f"{directory} has a pair of {' and '.join(dict.fromkeys(there))} already; --force replaces it, "
            "and shuts out all who rely on it"
        )
    for name in wanted:
        _make_pair(directory, name)
        say(f"{directory}/{name}{PUBLIC} is for others, {name}{SECRET} stays here")
    if BROKER in wanted:
        _tell_of_broker(directory, [role for role in PEERS if role in wanted])
    else:
        _tell_of_peer(directory, wanted)


def _make_pair(directory: Path, name: str) -> None:
    """Makes a pair, or nothing. The secret half is moved into place first: no public half is ever without it."""
    with tempfile.TemporaryDirectory(dir=directory) as draft:
        create_certificates(draft, name)
        for end in (SECRET, PUBLIC):
            Path(draft, f"{name}{end}").replace(directory / f"{name}{end}")


def _tell_of_broker(directory: Path, own: Sequence[Role]) -> None:
    for role in own:
        _write(directory, role, LOCAL, public_key(directory / f"{role}{PUBLIC}", ""))
    if own:
        say(f"This host's {' and '.join(own)} may reach the broker, as `{LOCAL}`.")
    say("For each other host: there, set RACEPOOL_KEYS and run `racepool keygen client` (or worker);")
    say(f"copy {directory}/{BROKER}{PUBLIC} to its key directory, and its client{PUBLIC} (or worker{PUBLIC}) here;")
    say("then run here `racepool keys allow FILE --as NAME --role client` (or worker).")


def _tell_of_peer(directory: Path, own: Sequence[str]) -> None:
    say(f"Copy {BROKER}{PUBLIC} from the broker's key directory to {directory}.")
    for name in own:
        say(
            f"Copy {directory}/{name}{PUBLIC} to the broker's host, and run there "
            f"`racepool keys allow {name}{PUBLIC} --as NAME --role {name}`."
        )


@click.group()
def keys() -> None:
    """Say who may reach this host's broker over tcp."""


@keys.command()
@click.argument("key", metavar="FILE|KEY")
@click.option("--as", "name", required=True, help="What to call it, in the list and in logs.")
@click.option(
    "--role",
    required=True,
    type=click.Choice([str(role) for role in Role]),
    help="What it opens; for a monitor: stats.",
)
def allow(key: str, name: str, role: str) -> None:
    """Allow a public key."""
    directory = _directory()
    if not NAME.fullmatch(name):
        raise click.UsageError(f"--as {name!r}: a name has up to 64 letters, digits and any of _ . -")
    public = _given(key)
    for path, known in _allowed(directory):
        if (path.parent.name, path.name) == (role, f"{name}{PUBLIC}") and known != public:
            raise click.ClickException(f"another key is called {name}; `racepool keys revoke {name}` first")
        if (path.parent.name, known) == (role, public) and path.name != f"{name}{PUBLIC}":
            raise click.ClickException(f"this key is allowed already, as {path.name.removesuffix(PUBLIC)}")
    _write(directory, Role(role), name, public)
    say(f"{name} may come in as {role}; {SOON}")


@keys.command(name="list")
def list_() -> None:
    """List the allowed keys."""
    screen = screen_of_stdout()
    table = NarrowTable((Column("Name", least=12), Column("Role"), Column("Key", optional=1)))
    for path, key in _allowed(_directory()):
        shown = key.decode() if key is not None else "unreadable: it lets nobody in"
        cells = (path.name.removesuffix(PUBLIC), path.parent.name, shown)
        if screen.is_terminal:
            table.add(*cells)
        else:
            say(*cells)
    if table.rows:
        screen.print(table)


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a key and end its open connections."""
    paths = [path for path, _ in _allowed(_directory()) if path.name == f"{name}{PUBLIC}"]
    if not paths:
        raise click.ClickException(f"no key is called {name}; see `racepool keys list`")
    for path in paths:
        path.unlink()
        say(f"{name} may not come in as {path.parent.name} any more; {SOON}")


def _given(key: str) -> bytes:
    path = Path(key)
    if path.is_file():
        return public_key(path, "give the file that ends in .key")
    try:
        return checked_key(key.encode())
    except ValueError:
        raise click.UsageError(UNKNOWN) from None  # does not repeat the argument, which may be a secret


def _allowed(directory: Path) -> Iterator[tuple[Path, bytes | None]]:
    for path in sorted(path for role in Role for path in (directory / ALLOWED / role).glob(f"*{PUBLIC}")):
        try:
            yield path, public_key(path, "")
        except SettingsError:
            yield path, None


def _write(directory: Path, role: Role, name: str, key: bytes) -> None:
    """Writes a public key alone, in the format of zmq.auth, which itself writes only pairs."""
    folder = directory / ALLOWED / role
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f"{name}.draft"
    draft.write_text(f'metadata\n    name = {name}\ncurve\n    public-key = "{key.decode()}"\n', encoding="ascii")
    draft.replace(folder / f"{name}{PUBLIC}")
