"""Events and MPI jobs of the campaign: they sleep for what they cost, since the pretended cores outnumber the real ones."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from hpcpanda.payload import RangeWork

BURNS_EVERY = 10
"""One event in so many computes instead of sleeping only."""


def generate(work: RangeWork) -> dict[str, np.ndarray]:
    """Two columns that depend on event and seed only; ``settings.event_s`` seconds an event, a tenth of them with work."""
    event = np.arange(work.first, work.last, dtype=np.uint64)
    mixed = (event * np.uint64(0x9E3779B97F4A7C15) + np.uint64(work.seed)) ^ (event >> np.uint64(7))
    until = time.monotonic() + len(event) * float(work.settings.get("event_s", 0.0))
    burning = time.process_time() + 0.002 * int(np.count_nonzero(event % BURNS_EVERY == 0))
    while work.settings.get("event_s") and time.process_time() < burning and time.monotonic() < until:
        pass
    time.sleep(max(0.0, until - time.monotonic()))
    return {"event": event, "value": mixed.astype("f8") / 2.0**64}


def mpi_job(job: int, seconds: float) -> None:
    """All ranks wait for each other, at the begin and at the end; rank 0 writes what they sent."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    total = world.allreduce(world.rank + 1)
    until = time.monotonic() + seconds
    time.sleep(max(0.0, until - time.monotonic()))
    if world.gather(total) and world.rank == 0:
        Path("out").write_text(f"job {job}\nranks {world.size} sum {total}\n")


if __name__ == "__main__":
    mpi_job(int(sys.argv[1]), float(sys.argv[2]))
