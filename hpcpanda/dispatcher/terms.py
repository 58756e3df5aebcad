"""The terms on which edges work: the few settings that the rules need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long rights and silences last."""

    lease_seconds: float = 300.0
    """A lease's life from its grant or renewal."""
    edge_alive_seconds: float = 60.0
    """An edge silent for longer counts as gone."""
