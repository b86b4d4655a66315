"""`racepool top`: the pool live in a terminal."""
