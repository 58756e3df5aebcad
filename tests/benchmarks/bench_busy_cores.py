"""How much of the cores the payload gets: ranges of exactly 10 ms of processor time on two workers, coordinator included.

``python -m tests.benchmarks.bench_busy_cores [RUNS]`` prints the share of the ideal: ranges x 10 ms over two cores
times the time from the begin of the first range to the end of the last. Whatever takes a core from a worker counts as
loss, other programs of the machine too; so each contender runs several times, in turn, beside two loops that nobody
coordinates, which show what the machine gives.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from tests.support.allocation_bench import mpi_program, run_pack

RANGES = 1200
RANGE_S = 0.01
WORKERS = 2

Span = tuple[float, float]


def busy(_: int = 0) -> Span:
    """Ten milliseconds of this thread's processor time; when they began and ended."""
    began = time.time()
    until = time.thread_time() + RANGE_S
    while time.thread_time() < until:
        pass
    return began, time.time()


def share(spans: list[Span]) -> float:
    """Useful core time over what there was."""
    wall = max(end for _, end in spans) - min(began for began, _ in spans)
    return len(spans) * RANGE_S / (WORKERS * wall)


def _many(count: int) -> list[Span]:
    return [busy() for _ in range(count)]


def uncoordinated() -> float:
    """Two processes that each do half of the ranges."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        halves = pool.map(_many, [RANGES // WORKERS] * WORKERS, chunksize=1)
    return share([span for half in halves for span in half])


def process_pool() -> float:
    """``concurrent.futures.ProcessPoolExecutor``, a task a range."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(int, range(WORKERS)))
        return share(list(pool.map(busy, range(RANGES))))


_MPI = """
import time
from mpi4py import MPI
from tests.benchmarks.bench_busy_cores import RANGES, busy, share
comm = MPI.COMM_WORLD
if comm.rank == 0:
    left, spans, status = RANGES, [], MPI.Status()
    working = comm.size - 1
    while working:
        while not comm.iprobe(status=status):
            time.sleep(0.0005)
        got = comm.recv(source=status.Get_source(), status=status)
        spans += got
        comm.send(left > 0, dest=status.Get_source())
        working -= left <= 0
        left -= 1
    print(share(spans))
else:
    done = []
    while True:
        comm.send(done, dest=0)
        if not comm.recv(source=0):
            break
        done = [busy()]
"""


def napping_mpi() -> float:
    """An mpi4py master that naps for half a millisecond between two looks, a message pair a range."""
    return float(mpi_program(_MPI, ranks=1 + WORKERS))


def ours() -> float:
    """A pack of one node with two workers, journal on, ranges of one event."""
    return _pack(nodes=1, cores=2)


def ours_two_nodes() -> float:
    """A pack of two ranks with a worker each."""
    return _pack(nodes=2, cores=1)


def _pack(*, nodes: int, cores: int) -> float:
    entries, coordination = run_pack("busy", RANGES, nodes=nodes, cores=cores, max_events=1)
    COORDINATION[nodes].append(coordination / WORKERS)
    began = float(entries["start"].min())
    ended = float((entries["start"] + entries["wall_s"]).max())
    return len(entries) * RANGE_S / (WORKERS * (ended - began))


COORDINATION: dict[int, list[float]] = {1: [], 2: []}
"""By number of ranks: share of the cores that a pack itself used."""

CONTENDERS: dict[str, Callable[[], float]] = {
    "two loops, uncoordinated": uncoordinated,
    "hpcpanda, 1 node x 2": ours,
    "hpcpanda, 2 ranks x 1": ours_two_nodes,
    "ProcessPoolExecutor": process_pool,
    "mpi4py, napping master": napping_mpi,
}


def main() -> None:
    """Run all in turn and print shares of the ideal."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(runs):
        for name, run in CONTENDERS.items():
            found[name].append(run())
    print(
        f"share of ideal, {RANGES} ranges of {RANGE_S * 1000:.0f} ms on {WORKERS} cores, {runs} runs in turn"
    )
    print(f"{'':28}{'best':>8}{'median':>8}{'worst':>8}")
    for name, shares in found.items():
        print(f"{name:28}{max(shares):8.1%}{statistics.median(shares):8.1%}{min(shares):8.1%}")
    for nodes, used in COORDINATION.items():
        print(
            f"cores used by launcher, ranks and fork servers, {nodes} rank(s): median {statistics.median(used):.2%}"
        )


if __name__ == "__main__":
    main()
