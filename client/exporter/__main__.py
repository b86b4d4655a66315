"""The exporter as a program of supervisord's: `python -P -m client.exporter`, the same as `racepool exporter`."""

import sys

from client.cli import main

if __name__ == "__main__":
    main(["exporter", *sys.argv[1:]], prog_name="racepool")
