"""Job generation: how tasks are cut into jobs, what edges are told of them, and what scouts decide."""
