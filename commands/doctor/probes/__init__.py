"""The probes: each reads one thing and changes nothing. The survey may leave one behind that does not end."""
