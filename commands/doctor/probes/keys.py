"""The key directory, as the broker and its peers read it."""

from pathlib import Path

from racepool.commands.doctor.facts import Keys
from racepool.protocol.endpoints import is_tcp
from racepool.protocol.errors import SettingsError
from racepool.protocol.keys import ALLOWED, BROKER, PUBLIC, SECRET, Role, broker_keys, peer_keys, public_key
from racepool.protocol.settings import Settings


def keys(settings: Settings) -> Keys | None:
    """Reads the key directory; None if the pool needs no keys. No secret leaves this function."""
    if settings.keys is None or not any(map(is_tcp, settings.endpoints())):
        return None
    is_brokers = (settings.keys / f"{BROKER}{SECRET}").exists()
    try:
        pair = peer_keys(settings, Role.CLIENT, settings.endpoint, settings.stats_endpoint)
        if is_brokers:
            broker_keys(settings)
            peer_keys(settings, Role.WORKER, settings.backend, settings.heartbeat_endpoint)
    except SettingsError as error:
        return Keys(settings.keys, str(error), is_brokers=is_brokers)
    if not is_brokers:
        return Keys(settings.keys)
    allowed, unreadable = _allowed(settings.keys)
    return Keys(
        settings.keys,
        is_brokers=True,
        allowed=len(allowed),
        unreadable=tuple(unreadable),
        knows_us=None if pair is None else (Role.CLIENT, pair.own.public) in allowed,
    )


def _allowed(directory: Path) -> tuple[set[tuple[Role, bytes]], list[Path]]:
    allowed, unreadable = set(), []
    for role in Role:
        for path in sorted((directory / ALLOWED / role).glob(f"*{PUBLIC}")):
            try:
                allowed.add((role, public_key(path, "")))
            except SettingsError:
                unreadable.append(path)
    return allowed, unreadable
