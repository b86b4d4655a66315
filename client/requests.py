"""Checks what a caller gives to `exec`, and packs it."""

from datetime import datetime

from racepool.client.answers import race_of
from racepool.protocol.errors import InvalidRaceError, PayloadTooLargeError
from racepool.protocol.parcel import Parcel
from racepool.protocol.settings import MAX_SECONDS
from racepool.races.payloads import pack_request
from racepool.races.previous_amounts import Previous, PreviousAmounts
from racepool.races.race import RaceInput


def packed(race: RaceInput, polled_at: datetime, previous: Previous, limit_bytes: int) -> Parcel:
    """Packs one poll of a race.

    Raises:
        InvalidRaceError: the race cannot be packed, or `polled_at` or `previous` breaks its rule.
        PayloadTooLargeError: the packed race is larger than `limit_bytes`.
    """
    try:
        amounts = None if previous is None else PreviousAmounts.of(previous)
        parcel = pack_request(race, polled_at, amounts)
    except InvalidRaceError as error:
        raise InvalidRaceError(error.errors, about=f"the race{race_of(race)}") from None
    if parcel.size_bytes > limit_bytes:
        raise PayloadTooLargeError(f"the packed race{race_of(parcel)}", parcel.size_bytes, limit_bytes)
    return parcel


def checked_timeout(name: str, timeout_s: float | None, default_s: float) -> float:
    """The timeout in seconds, or the default for None.

    Raises:
        ValueError: it is not above 0, or above MAX_SECONDS.
    """
    if timeout_s is None:
        return default_s
    if not 0 < timeout_s <= MAX_SECONDS:  # false for nan, too
        raise ValueError(f"{name} must be a number of seconds, above 0 and at most {MAX_SECONDS}, not {timeout_s!r}")
    return timeout_s
