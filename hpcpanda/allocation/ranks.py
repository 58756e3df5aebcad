"""How the ranks of a pack reach each other: MPI when there are several, a plain queue when there is one.

MPI is polled with naps, never waited in: a spinning wait would take a core from the payload.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

from hpcpanda.allocation.rank_messages import ToDirector, ToRank

_TO_RANK, _TO_DIRECTOR = 1, 2
_LEAVE_NAP_S = 0.005


class Ranks(Protocol):
    """Messages between the ranks and the director of a pack; never blocks."""

    rank: int
    size: int

    def to_rank(self, rank: int, message: ToRank) -> None:
        """Send to a rank; only rank 0 does."""
        ...

    def to_director(self, message: ToDirector) -> None:
        """Send to the director on rank 0."""
        ...

    def for_rank(self) -> list[ToRank]:
        """What has arrived for this rank."""
        ...

    def for_director(self) -> list[tuple[int, ToDirector]]:
        """What has arrived for the director, with the sender's rank."""
        ...

    def close(self) -> None:
        """All messages are delivered; leave."""
        ...


class OneRank:
    """A pack of one node needs no MPI."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self._rank: deque[ToRank] = deque()
        self._director: deque[tuple[int, ToDirector]] = deque()

    def to_rank(self, rank: int, message: ToRank) -> None:
        """Queue for the one rank."""
        assert rank == 0
        self._rank.append(message)

    def to_director(self, message: ToDirector) -> None:
        """Queue for the director."""
        self._director.append((0, message))

    def for_rank(self) -> list[ToRank]:
        """Take all for the one rank."""
        messages = list(self._rank)
        self._rank.clear()
        return messages

    def for_director(self) -> list[tuple[int, ToDirector]]:
        """Take all for the director."""
        messages = list(self._director)
        self._director.clear()
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

    def to_rank(self, rank: int, message: ToRank) -> None:
        """Send to a rank, by queue when it is on this rank."""
        if rank == self.rank:
            self._local.to_rank(0, message)
        else:
            self._send(message, rank, _TO_RANK)

    def to_director(self, message: ToDirector) -> None:
        """Send to rank 0, by queue from rank 0 itself."""
        if self.rank == 0:
            self._local.to_director(message)
        else:
            self._send(message, 0, _TO_DIRECTOR)

    def for_rank(self) -> list[ToRank]:
        """Take all that has arrived for this rank."""
        arrived: list[ToRank] = [m for _, m in self._arrived(_TO_RANK)]
        return self._local.for_rank() + arrived

    def for_director(self) -> list[tuple[int, ToDirector]]:
        """Take all that has arrived at rank 0."""
        if self.rank != 0:
            return []
        return self._local.for_director() + self._arrived(_TO_DIRECTOR)

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
        self._arrived(_TO_RANK)
        self._arrived(_TO_DIRECTOR)
        time.sleep(_LEAVE_NAP_S)

    def _arrived(self, tag: int) -> list[tuple[int, Any]]:
        found = []
        status = self._mpi.Status()
        while self._comm.iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
            found.append((status.Get_source(), self._comm.recv(source=status.Get_source(), tag=tag)))
        return found
