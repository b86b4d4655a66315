"""Ends the supervisord above it when the process that it was started for has ended, however that ended."""

import os
import select
import signal
import sys
from contextlib import suppress

from racepool.protocol.processes import die_with_supervisor


def main() -> None:
    """Waits for the end of the process whose pid is the first argument."""
    die_with_supervisor()
    with suppress(ProcessLookupError):
        owner = os.pidfd_open(int(sys.argv[1]))
        select.select([owner], [], [])
    os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
