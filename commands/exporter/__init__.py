"""`racepool exporter`: metrics for Prometheus, and a status page for people. It only asks, and changes nothing."""
