"""What lower bounds are made of; `hpcpanda.packing.bounds` is the way in."""
