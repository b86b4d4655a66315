"""The command `racepool`: one module or folder for each verb, and what several verbs share."""
