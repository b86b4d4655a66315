"""Invented races, and the program that writes them. No horse, person, place or host in them is real."""
