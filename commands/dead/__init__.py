"""`racepool dead`: the tasks that were given up."""
