"""Pure rules of filling a machine: which holes there are, which allocations to ask for."""
