"""What runs inside a batch job: head, pack, node agents, workers."""
