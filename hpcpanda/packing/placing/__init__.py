"""How jobs are placed on nodes and time; `hpcpanda.packing.placement` is the way in."""
