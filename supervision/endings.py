"""Why a program ended soon after its start, in words: how it ended, and what it wrote last."""

import json
from dataclasses import dataclass
from pathlib import Path

from supervisor.options import decode_wait_status

from racepool.protocol.visible import visible

AT_ONCE_S = 1.0  # a program that ends sooner is started again a second after its start
SOON_S = 5.0  # a failure that comes sooner after the start most likely belongs to the start
PAUSE_S = 10.0  # between two lines about the programs of one group
TAIL_BYTES = 8_192  # of a log; a traceback's last line is within it
WORDS_CHARS = 600


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a program that supervisord did not stop."""

    name: str
    group: str
    lived_s: float
    status: int | None  # as waitpid tells it; None: there was no process
    words: str  # the last that it wrote in this life, or why it could not be started

    @property
    def exit_code(self) -> int:
        """The exit code; -1 if there is none."""
        return -1 if self.status is None else int(decode_wait_status(self.status)[0])

    @property
    def is_telling(self) -> bool:
        """Whether an operator should know: a worker that is recycled ends with 0, and a crash later is a task's."""
        return self.lived_s < (AT_ONCE_S if self.exit_code == 0 else SOON_S)

    def __str__(self) -> str:
        if self.status is None:
            return f"{self.name} cannot be started: {self.words}"
        how = decode_wait_status(self.status)[1]
        words = f"its last words: {self.words}" if self.words else "it wrote nothing into its log"
        return f"{self.name} ended {self.lived_s:.1f} s after its start ({how}) and is started again; {words}"


class Told:
    """Lets each reason through once, and a changed one after a pause: programs may end every second."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}  # by group: the reason, and when it was told

    def is_new(self, ending: Ending, now: float) -> bool:
        """Whether to tell this ending; if so, it is noted as told."""
        reason = f"{ending.status} {ending.words}"
        told, at = self._last.get(ending.group, ("", -PAUSE_S))
        if not ending.is_telling or reason == told or now - at < PAUSE_S:
            return False
        self._last[ending.group] = (reason, now)
        return True


def last_words(log: Path | None, offset: int = 0) -> str:
    """What the last line of a log says, printable, from this offset on; empty if there is none, or no such file."""
    try:
        with open(log or "", "rb") as file:  # noqa: PTH123  # an empty path is no file
            size = file.seek(0, 2)
            file.seek(max(offset if offset <= size else 0, size - TAIL_BYTES))  # a smaller file was rotated
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return visible(_said(lines[-1]))[:WORDS_CHARS] if lines else ""


def _said(line: str) -> str:
    """The reason in a log line; without one, its event; a line that is not from our log, as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict):
        return line
    exception = str(entry.get("exception") or "").strip().splitlines()
    return str(entry.get("reason") or (exception[-1] if exception else "") or entry.get("event") or line)
