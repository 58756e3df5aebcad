"""What the dispatcher does: one function a use case, over a unit of work, at a given time."""
