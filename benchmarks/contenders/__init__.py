"""The pools that are compared, each opened by a module of its own in a process of its own."""
