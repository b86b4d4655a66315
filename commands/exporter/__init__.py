"""`racepool exporter`: the figures for Prometheus, and a status page for people. It asks, and changes nothing."""
