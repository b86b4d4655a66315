"""Where pictures of races go: one file, or a folder with a picture of each race. Checks first whether it can draw."""

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from racepool.commands.pictures.money_curves import Curves, NothingToShowError, curves_of
from racepool.protocol.errors import PoolError
from racepool.protocol.extras import require
from racepool.races.money_row import PollRows
from racepool.races.transformed_race import TransformedRace

SUFFIXES: Final = (".png", ".svg", ".pdf")
LONGEST_PART: Final = 100  # bytes; a file name may have 255


class Album:
    """The target of `--plot`.

    Args:
        target: a file with a suffix of SUFFIXES for one picture; else a folder, which is made with the first picture.

    Raises:
        PoolError: matplotlib is not installed, or the suffix is unknown.
    """

    def __init__(self, target: Path) -> None:
        require("matplotlib", extra="plot", purpose="--plot")
        self.target = target
        self._collected: dict[str, list[PollRows]] = {}
        self.is_folder = target.is_dir() or not target.suffix
        if not self.is_folder and target.suffix.lower() not in SUFFIXES:
            raise PoolError(f"--plot {target}: name a file ending in {', '.join(SUFFIXES)}, or a folder")

    def require_one(self, race_count: int, remedy: str = "") -> None:
        """Checks that one file is not meant to show several races.

        Raises:
            PoolError: it is; the text says what to do, and ends with `remedy`.
        """
        if not self.is_folder and race_count > 1:
            raise PoolError(
                f"--plot {self.target}: there are {race_count} races; name a folder for a picture of each{remedy}"
            )

    def add(self, race: TransformedRace) -> None:
        """Keeps a poll of a race for `draw`."""
        self._collected.setdefault(race.race_id, []).append(PollRows.of(race))

    def draw(self) -> list[str]:
        """Draws what was added, as `draw_races` does.

        Raises:
            PoolError: there are several races for one file, or a picture cannot be written.
        """
        self.require_one(len(self._collected))
        return self.draw_races(self._collected.values(), lambda: None)

    def draw_races(self, races: Iterable[Iterable[PollRows]], advance: Callable[[], None]) -> list[str]:
        """Draws each race.

        Args:
            races: the polls of each; they are taken one race at a time, to save memory.
            advance: called after each race.

        Returns:
            A text for each race without a picture: why.

        Raises:
            PoolError: a picture cannot be written.
        """
        from racepool.commands.pictures.money_plot import draw  # noqa: PLC0415  # needs matplotlib, an extra

        missing = []
        for polls in races:
            try:
                curves = curves_of(polls)
            except NothingToShowError as error:
                missing.append(f"no picture: {error}")
            else:
                draw(curves, self._path_of(curves))
            advance()
        return missing

    def _path_of(self, curves: Curves) -> Path:
        """The file of a picture. In a folder, it is named after the race, and its id makes the name unique."""
        if not self.is_folder:
            return self.target
        try:
            self.target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PoolError(f"--plot {self.target}: {error.strerror}") from None
        return self.target / f"{file_name_of(curves.name, curves.race_id)}.png"


def file_name_of(name: str, race_id: str) -> str:
    """A file name for a race: letters, digits and single dashes, not longer than file systems allow.

    An id that does not fit, or has other characters, is told apart from similar ids by a part of its hash.
    """
    readable, unique = (_words(text) for text in (name, race_id))
    digest = "" if unique == race_id else sha256(race_id.encode(errors="surrogatepass")).hexdigest()[:8]
    return "-".join(filter(None, (readable, unique, digest)))


def _words(text: str) -> str:
    words = re.sub(r"\W+", "-", text).encode()[:LONGEST_PART].decode(errors="ignore")
    return words.strip("-")
