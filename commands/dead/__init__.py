"""`racepool dead`: the tasks that the broker gave up and keeps."""
