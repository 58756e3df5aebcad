"""How the ranks of a pack reach each other: MPI when there are several, a plain queue when there is one.

MPI is polled with naps, never waited in: a spinning wait would take a core from the payload.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

from hpcpanda.allocation.messages import ToAgent, ToCoordinator

_TO_AGENT, _TO_COORDINATOR = 1, 2
_LEAVE_NAP_S = 0.005


class Ranks(Protocol):
    """Messages between the agents and the coordinator of a pack; never blocks."""

    rank: int
    size: int

    def to_agent(self, rank: int, message: ToAgent) -> None:
        """Send to an agent; only rank 0 does."""
        ...

    def to_coordinator(self, message: ToCoordinator) -> None:
        """Send to the coordinator on rank 0."""
        ...

    def for_agent(self) -> list[ToAgent]:
        """What has arrived for this rank's agent."""
        ...

    def for_coordinator(self) -> list[tuple[int, ToCoordinator]]:
        """What has arrived for the coordinator, with the sender's rank."""
        ...

    def close(self) -> None:
        """All messages are delivered; leave."""
        ...


class OneRank:
    """A pack of one node needs no MPI."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self._agent: deque[ToAgent] = deque()
        self._coordinator: deque[tuple[int, ToCoordinator]] = deque()

    def to_agent(self, rank: int, message: ToAgent) -> None:
        """Queue for the agent."""
        assert rank == 0
        self._agent.append(message)

    def to_coordinator(self, message: ToCoordinator) -> None:
        """Queue for the coordinator."""
        self._coordinator.append((0, message))

    def for_agent(self) -> list[ToAgent]:
        """Take all for the agent."""
        messages = list(self._agent)
        self._agent.clear()
        return messages

    def for_coordinator(self) -> list[tuple[int, ToCoordinator]]:
        """Take all for the coordinator."""
        messages = list(self._coordinator)
        self._coordinator.clear()
        return messages

    def close(self) -> None:
        """Nothing to leave."""


class MpiRanks:
    """Ranks of an MPI program; import and construction initialise MPI, so fork before."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = MPI.COMM_WORLD
        self.rank: int = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        self._local = OneRank()
        self._sending: list[Any] = []

    def to_agent(self, rank: int, message: ToAgent) -> None:
        """Send to an agent, by queue when it is on this rank."""
        if rank == self.rank:
            self._local.to_agent(0, message)
        else:
            self._send(message, rank, _TO_AGENT)

    def to_coordinator(self, message: ToCoordinator) -> None:
        """Send to rank 0, by queue from rank 0 itself."""
        if self.rank == 0:
            self._local.to_coordinator(message)
        else:
            self._send(message, 0, _TO_COORDINATOR)

    def for_agent(self) -> list[ToAgent]:
        """Take all that has arrived for this rank's agent."""
        arrived: list[ToAgent] = [m for _, m in self._arrived(_TO_AGENT)]
        return self._local.for_agent() + arrived

    def for_coordinator(self) -> list[tuple[int, ToCoordinator]]:
        """Take all that has arrived at rank 0."""
        if self.rank != 0:
            return []
        return self._local.for_coordinator() + self._arrived(_TO_COORDINATOR)

    def close(self) -> None:
        """Leave together: until all ranks are here, what still arrives is received and dropped.

        A message that nobody takes would make MPI's own end fail, or a large one its sender wait for ever.
        """
        while not all(r.Test() for r in self._sending):
            self._drop_arrived()
        everybody = self._comm.Ibarrier()
        while not everybody.Test():
            self._drop_arrived()
        self._drop_arrived()
        self._mpi.Finalize()

    def _send(self, message: object, rank: int, tag: int) -> None:
        self._sending = [r for r in self._sending if not r.Test()]
        self._sending.append(self._comm.isend(message, dest=rank, tag=tag))

    def _drop_arrived(self) -> None:
        self._arrived(_TO_AGENT)
        self._arrived(_TO_COORDINATOR)
        time.sleep(_LEAVE_NAP_S)

    def _arrived(self, tag: int) -> list[tuple[int, Any]]:
        found = []
        status = self._mpi.Status()
        while self._comm.iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
            found.append((status.Get_source(), self._comm.recv(source=status.Get_source(), tag=tag)))
        return found
