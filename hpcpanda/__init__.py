"""hpcpanda: backfill supercomputers with event-based science."""

from importlib.metadata import version

__version__ = version("hpcpanda")
