"""The crash lab, `racepool chaos`: a private pool under load, faults that are known, and a witness who knows the truth.

`plan` says what will happen, `lab` has it happen (`faults` do the harm, `load` submits), `witness` and `measurement`
judge what the records and logs tell, `report` shows it.
"""
