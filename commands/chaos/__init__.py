"""The crash lab, `racepool chaos`: a private pool under load, planned faults, and a check of all results.

`plan` says what will happen. `lab` makes it happen: `faults` do the harm, `load` submits tasks. `witness`,
`measurement` and `verdict` judge the records and logs. `report` shows the findings.
"""
