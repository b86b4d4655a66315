"""`racepool dead`: the dead tasks that the broker keeps."""
