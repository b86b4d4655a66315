"""Which broken messages the tests send: of any kind, to any peer. What breaks them is in the crash lab's corpus."""

from random import Random

from racepool.commands.chaos.corpus import MUTATIONS, real
from racepool.protocol.frames import (
    FROM_CLIENT,
    FROM_HEARTBEAT,
    FROM_WORKER,
    TO_CLIENT,
    TO_HEARTBEAT,
    TO_WORKER,
    BadFrameError,
    ForeignVersionError,
    decode,
    encode,
)
from racepool.protocol.messages import Payload, Welcome

INLETS = (FROM_CLIENT, TO_CLIENT, FROM_WORKER, TO_WORKER, FROM_HEARTBEAT, TO_HEARTBEAT)
KINDS: list[type] = sorted({each.message for inlet in INLETS for each in inlet.commands.values()}, key=str)


def any_frames(dice: Random) -> list[Payload]:
    """The frames of a real message, broken in one way. Seldom they are still a valid message."""
    frames = encode(real(dice.choice(KINDS), dice))
    return dice.choice(MUTATIONS)(frames, dice)


def any_frames_but_terms(dice: Random) -> list[Payload]:
    """As `any_frames`, but without messages that end or change a client's session.

    Left out are messages of another version, which fail every waiting task, and Welcome, which sets new limits.
    """
    while True:
        frames = any_frames(dice)
        try:
            message = decode(frames, TO_CLIENT)
        except ForeignVersionError:
            continue
        except BadFrameError:
            return frames
        if not isinstance(message, Welcome):
            return frames
