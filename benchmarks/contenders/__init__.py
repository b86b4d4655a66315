"""The pools that are compared. Each has a module that opens it, in a process of its own."""
