"""The client library: it submits races to the broker and hands their results to the caller."""
