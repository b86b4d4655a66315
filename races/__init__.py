"""The domain, pure: a poll of a race in, its money flow out. Knows no socket, clock or process."""
