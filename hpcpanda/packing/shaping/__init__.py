"""How requests for allocations get their shape; `hpcpanda.packing.requests` is the way in."""
