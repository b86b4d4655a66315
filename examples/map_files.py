"""A plain script, no asyncio: the polls in these files through the pool, `python -m examples.map_files FILE...`.

It brings a pool of its own. Where `racepool up` runs, `with ZmqPool() as pool:` instead of `local_pool` uses that.
"""

import argparse
import sys
from pathlib import Path

from racepool import PoolError, TransformedRace, local_pool


def main() -> int:
    """Prints a line for each file in the order in which they are done; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.map_files", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    failures = 0
    with local_pool(workers=options.workers) as pool:
        # Files are read as the pool takes them: a year of polls needs no more memory than a minute of them.
        # `pool.map(...)` instead gives the results in the order of the files, and ends at the first that fails.
        for index, future in pool.as_completed(path.read_bytes() for path in options.files):
            name = options.files[index].name
            try:
                print(f"{name}: {_told(future.result())}")  # noqa: T201
            except PoolError as error:  # of this file alone; the others go on
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
