"""The pool live in a terminal."""
