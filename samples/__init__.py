"""Races of our own making, and the program that writes them: no horse, person, place or host in them is real."""
