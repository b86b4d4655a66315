"""Programs on top of racepool, to be run, read and copied: a service, a script, a test of one's own."""
