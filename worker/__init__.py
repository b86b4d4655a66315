"""The program that does the tasks: the transform, and the process around it."""
