"""`racepool doctor`: `probes` gather facts about a set-up, `checks` judge them."""
