"""Runs under the supervisord of a local pool, and ends it when the process that started the pool has ended."""

import os
import select
import signal
import sys
from contextlib import suppress

from racepool.protocol.processes import die_with_supervisor


def main() -> None:
    """Waits until the process whose pid is the first argument ends, then sends SIGTERM to supervisord."""
    die_with_supervisor()
    with suppress(ProcessLookupError):
        owner = os.pidfd_open(int(sys.argv[1]))
        select.select([owner], [], [])
    os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
