"""racepool beside its peers, and its broker at scale: `python -m benchmarks --help`."""
