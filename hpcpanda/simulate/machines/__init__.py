"""The host machine of a trace, with our allocations on it."""
