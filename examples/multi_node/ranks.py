"""What the ranks of a multi-node Python job must know of each other before a cluster can start."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable

from mpi4py import MPI

NODE = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
"""The ranks on this node."""
_CORES = os.sched_getaffinity(0)
THREADS = max(1, len(_CORES) // NODE.allgather(_CORES).count(_CORES))
"""Cores for this rank: those it is bound to, shared with the ranks that are bound to the same."""


def address() -> str:
    """Address under which the other ranks reach this one: loopback when all are on one node."""
    if NODE.size == MPI.COMM_WORLD.size:
        return "127.0.0.1"
    found = socket.gethostbyname(socket.gethostname())
    if found.startswith("127."):
        raise RuntimeError(f"{socket.gethostname()} is known as {found}, which other nodes cannot reach")
    return found


def run(lead: Callable[[], None], follow: Callable[[], None]) -> None:
    """Run ``lead`` on rank 0 and ``follow`` on the others; an error anywhere ends them all."""
    try:
        (follow if MPI.COMM_WORLD.rank else lead)()
    except BaseException:  # noqa: BLE001 - whatever ends one rank ends all
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
