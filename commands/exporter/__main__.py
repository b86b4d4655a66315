"""The exporter as a program: `python -P -m racepool.commands.exporter`, the same as `racepool exporter`."""

import sys

from racepool.commands.group import main

if __name__ == "__main__":
    main(["exporter", *sys.argv[1:]], prog_name="racepool")
