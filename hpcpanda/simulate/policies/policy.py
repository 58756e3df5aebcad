"""What decides which allocations to ask for: a policy, driven by the clock of a simulated batch system."""

from __future__ import annotations

from typing import Protocol

from hpcpanda.simulate.ports import AllocationEvent, BatchSystem
from hpcpanda.simulate.work.account import Account


class Policy(Protocol):
    """One way of harvesting; it lives for one simulation."""

    @property
    def name(self) -> str:
        """For people, short."""
        ...

    @property
    def account(self) -> Account:
        """What has become of the node-time so far."""
        ...

    def due(self, system: BatchSystem) -> float:
        """When it wants to act next, unless something happens to its allocations."""
        ...

    def heard(self, event: AllocationEvent) -> None:
        """Something has happened to an allocation of its own."""
        ...

    def act(self, system: BatchSystem) -> None:
        """Do what is due at ``system.now``."""
        ...

    def close(self, system: BatchSystem) -> None:
        """The simulation is over: account for what runs, as if killed."""
        ...


def next_poll(now: float, poll_s: float, at: float) -> float:
    """The first instant after ``now`` and not before ``at`` at which one polls who polls every ``poll_s`` from 0 on."""
    polls = max(now // poll_s + 1, -(-at // poll_s))
    return polls * poll_s
