"""A plain script without asyncio: it sends the polls in files through a pool, `python -m examples.map_files FILE...`.

It starts its own local pool. To use the pool of `racepool up`, write `with ZmqPool() as pool:` instead of `local_pool`.
"""

import argparse
import sys
from pathlib import Path

from racepool import PoolError, TransformedRace, local_pool


def main() -> int:
    """Prints a line for each file, in the order in which they finish; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.map_files", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    failures = 0
    with local_pool(workers=options.workers) as pool:
        # The pool reads each file when it has room for it: a year of polls needs no more memory than a minute of polls.
        # `pool.map(...)` instead gives the results in the order of the files, and ends at the first failure.
        for index, future in pool.as_completed(path.read_bytes() for path in options.files):
            name = options.files[index].name
            try:
                print(f"{name}: {_told(future.result())}")  # noqa: T201
            except PoolError as error:  # an error of this file alone; the other files go on
                failures += 1
                print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
    return 1 if failures else 0


def _told(race: TransformedRace) -> str:
    records = race.money_flow_records
    if not records:
        return f"{race.race_name}, no money yet"
    leader = max(records, key=lambda record: record.win_pool_amount)
    name = next(entrant.name for entrant in race.entrants if entrant.entrant_id == leader.entrant_id)
    return f"{race.race_name}, {len(records)} runners, most money on {name} (${leader.win_pool_amount / 100:,.2f})"


if __name__ == "__main__":
    sys.exit(main())
