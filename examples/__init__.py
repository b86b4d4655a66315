"""Programs that use racepool, to run, read and copy: a service, a script, and tests of your own code."""
