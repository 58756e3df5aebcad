"""The terms on which edges work: the few settings that the rules need."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcpanda.brokerage.failures import FailureRules
from hpcpanda.brokerage.shares import SharePlan, ShareTree
from hpcpanda.dispatcher.failures_file import standard_rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long rights and silences last, and who comes first."""

    lease_seconds: float = 300.0
    """A lease's life from its grant or renewal."""
    edge_alive_seconds: float = 60.0
    """An edge silent for longer counts as gone."""
    tree: ShareTree = field(default_factory=lambda: ShareTree(SharePlan()))
    """How computing is shared, and what else the order goes by."""
    rules: FailureRules = field(default_factory=standard_rules)
    """What failures come from, and what is done about them."""
