"""`racepool replay`: sends a day of captured polls through the pool; writes a table and pictures."""
