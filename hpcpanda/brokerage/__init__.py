"""Which task is served first, and which site may have it: pure rules."""
