"""The load-balancing broker: who works on what, and who is still alive. It never opens a payload."""
