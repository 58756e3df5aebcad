"""A Dask cluster for one MPI job: rank 0 has the scheduler and the client code, the other ranks are workers.

Traffic is encrypted and only holders of a key made for this job are let in; the key goes over MPI.
"""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import ranks
from distributed import Client, LocalCluster, Security, Worker
from mpi4py import MPI

COMM = MPI.COMM_WORLD


def inside(seed: int, points: int = 200_000) -> int:
    """Random points of the unit square that are in the circle."""
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 < 1 for _ in range(points))


def work(client: Client) -> None:
    """The user's code."""
    counts = client.gather(client.map(inside, range(20)))
    pi = 4 * sum(counts) / (20 * 200_000)
    Path("pi.txt").write_text(f"{pi:.4f}\n")
    print(f"pi = {pi:.4f} from {len(client.scheduler_info()['workers'])} workers", flush=True)


def lead() -> None:
    """Start the scheduler, tell where it is, run the user's code; leaving ends the workers."""
    security = Security.temporary()
    with (
        LocalCluster(
            n_workers=0,
            host=ranks.address(),
            protocol="tls://",
            security=security,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        COMM.bcast((cluster.scheduler_address, security))
        client.wait_for_workers(COMM.size - 1, timeout=120)
        work(client)


def follow() -> None:
    """Be a worker until the scheduler ends."""
    scheduler, security = COMM.bcast(None)

    async def serve() -> None:
        async with Worker(
            scheduler,
            host=ranks.address(),
            nthreads=ranks.THREADS,
            security=security,
            dashboard_address="127.0.0.1:0",
            death_timeout=60,
        ) as worker:
            await worker.finished()

    asyncio.run(serve())


if __name__ == "__main__":
    logging.getLogger("distributed").setLevel(logging.WARNING)
    ranks.run(lead, follow)
