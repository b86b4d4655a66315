"""The worker: a program that runs one task at a time."""
