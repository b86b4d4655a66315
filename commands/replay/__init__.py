"""`racepool replay`: a day of captured polls through the pool again, into one table and into pictures."""
