"""supervisord as `racepool up` runs it: what it cannot say, on a full disk say, is lost and does not end it."""

import io
import os
import sys
from contextlib import suppress

from supervisor import supervisord


class Lossy(io.TextIOBase):
    """A text stream at a descriptor; what that does not take is lost.

    supervisord reports a log line that it cannot write on its standard error, and dies where that fails as well.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        """Tries to write all of it."""
        with suppress(OSError):
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)

    def fileno(self) -> int:
        """Where it writes to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        return os.isatty(self._descriptor)


def main() -> None:
    """Runs supervisord with the arguments of this process."""
    sys.stdout = sys.stderr = Lossy(sys.stderr.fileno())  # standard output may be the programs' log, and that alone
    supervisord.main()


if __name__ == "__main__":
    main()
