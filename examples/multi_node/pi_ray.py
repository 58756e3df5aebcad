"""A Ray cluster for one MPI job: rank 0 has the head node and the client code, the other ranks are its nodes.

Only holders of a token made for this job are let in; the token goes over MPI.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ranks
from mpi4py import MPI

COMM = MPI.COMM_WORLD
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": COMM.bcast(secrets.token_hex(32))}
import ray  # noqa: E402 - it reads the token when it is imported

RAY = Path(sysconfig.get_path("scripts")) / "ray"


@ray.remote
def inside(seed: int, points: int = 200_000) -> int:
    """Random points of the unit square that are in the circle."""
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 < 1 for _ in range(points))


def work() -> None:
    """The user's code."""
    counts = ray.get([inside.remote(seed) for seed in range(20)])
    pi = 4 * sum(counts) / (20 * 200_000)
    Path("pi.txt").write_text(f"{pi:.4f}\n")
    print(f"pi = {pi:.4f} from {sum(node['Alive'] for node in ray.nodes())} nodes", flush=True)


@contextmanager
def node(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ray's processes on this node; they and their files end with this block, the processes also with this rank."""
    command = ["setpriv", "--pdeathsig", "TERM", str(RAY), "start", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={ranks.address()}", f"--num-cpus={ranks.THREADS}", *options]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen([*command, f"--temp-dir={folder}"], stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def lead() -> None:
    """Start the head, tell where it is, run the user's code, and wait until the other nodes have left."""
    with socket.create_server((ranks.address(), 0)) as free:
        head = f"{ranks.address()}:{free.getsockname()[1]}"
    with node("--head", f"--port={head.split(':')[1]}", "--include-dashboard=false"):
        COMM.bcast(head)
        try:
            connect(head)
            work()
        finally:
            ray.shutdown()
            COMM.Ibarrier().Wait()  # now the others end
            COMM.Barrier()  # and now they have


def connect(head: str) -> None:
    """Wait for the head and for all nodes."""
    deadline = time.monotonic() + 120
    while not ray.is_initialized():
        try:
            ray.init(address=head, log_to_driver=False)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    while len(ray.nodes()) < COMM.size and time.monotonic() < deadline:
        time.sleep(0.2)


def follow() -> None:
    """Be a node until rank 0 has ended."""
    head = COMM.bcast(None)
    ended = COMM.Ibarrier()
    with node(f"--address={head}") as process:
        while not ended.Test():
            if process.poll() is not None:
                raise RuntimeError(f"Ray ended with status {process.returncode}")
            time.sleep(0.2)
    COMM.Barrier()


if __name__ == "__main__":
    ranks.run(lead, follow)
