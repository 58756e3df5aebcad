"""Staging on POSIX file systems: inputs are copied into the spool before they are needed, outputs moved after the merge."""

from hpcpanda_edge.staging.places import staged_spec
from hpcpanda_edge.staging.stager import Incoming, Outgoing, Stager

__all__ = ["Incoming", "Outgoing", "Stager", "staged_spec"]
