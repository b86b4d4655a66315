"""What is wrong with a set-up, and what to do about it: facts are gathered by `probes`, judged by `checks`."""
