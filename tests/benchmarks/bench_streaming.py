"""Ranges a second: no-op ranges of one event through a pack, beside what others take for a no-op task.

``python -m tests.benchmarks.bench_streaming [RUNS]`` runs all in turn and prints medians and the ratio to a bare mpi4py
master with two workers. Ours writes its journal; the others keep nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.support.allocation_bench import mpi_program, run_pack

WORKERS = 2
OURS, BARE, POOL, PARSL, HYPERQUEUE = 600_000, 300_000, 20_000, 3_000, 2_000
"""Ranges or tasks a run."""

_MPI = """
import time
from mpi4py import MPI
from tests.benchmarks.bench_streaming import BARE
comm, status = MPI.COMM_WORLD, MPI.Status()
if comm.rank == 0:
    left, working = BARE, comm.size - 1
    for rank in range(1, comm.size):
        comm.recv(source=rank)
    began = time.perf_counter()
    for rank in range(1, comm.size):
        comm.send((0, 1), dest=rank)
    while working:
        comm.recv(status=status)
        comm.send((left, left + 1) if left > 0 else None, dest=status.Get_source())
        working -= left <= 0
        left -= 1
    print(BARE / (time.perf_counter() - began))
else:
    comm.send(None, dest=0)
    while comm.recv(source=0):
        comm.send(b"", dest=0)
"""


def nothing(_: int = 0) -> bytes:
    """No work."""
    return b""


def bare_mpi() -> float:
    """A pickled message pair a range, the master spinning."""
    return float(mpi_program(_MPI, ranks=1 + WORKERS))


def ours() -> float:
    """One rank, two workers."""
    return _pack(nodes=1, cores=2)


def ours_two_ranks() -> float:
    """Two ranks with a worker each."""
    return _pack(nodes=2, cores=1)


def _pack(*, nodes: int, cores: int) -> float:
    entries, _ = run_pack("nothing", OURS, nodes=nodes, cores=cores, max_events=1)
    assert len(entries) == OURS
    return OURS / float((entries["start"] + entries["wall_s"]).max() - entries["start"].min())


def process_pool() -> float:
    """``concurrent.futures.ProcessPoolExecutor``, a task a range."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(nothing, range(100)))
        began = time.perf_counter()
        list(pool.map(nothing, range(POOL)))
        return POOL / (time.perf_counter() - began)


def parsl_executor() -> float:
    """Parsl's HighThroughputExecutor with two workers, an app a range."""
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # its own programs
    with tempfile.TemporaryDirectory() as folder:
        executor = HighThroughputExecutor(
            label="two",
            max_workers_per_node=WORKERS,
            address="127.0.0.1",
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        )
        kernel = parsl.load(Config(executors=[executor], run_dir=folder, initialize_logging=False))
        try:
            app = parsl.python_app(nothing, data_flow_kernel=kernel)
            app().result()
            began = time.perf_counter()
            for future in [app() for _ in range(PARSL)]:
                future.result()
            return PARSL / (time.perf_counter() - began)
        finally:
            kernel.cleanup()
            parsl.clear()


def hyperqueue_tasks() -> float:
    """HyperQueue with one worker of two processors, a task of ``/bin/true`` a range, all in one job."""
    from hyperqueue import Job
    from hyperqueue.cluster import LocalCluster, WorkerConfig

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        LocalCluster(folder, WorkerConfig(cores=WORKERS)) as cluster,
    ):
        client = cluster.client()

        def run(tasks: int) -> float:
            job = Job()
            for _ in range(tasks):
                job.program(["/bin/true"], stdout=None, stderr=None)
            began = time.perf_counter()
            client.wait_for_jobs([client.submit(job)])
            return time.perf_counter() - began

        run(10)
        return HYPERQUEUE / run(HYPERQUEUE)


CONTENDERS: dict[str, Callable[[], float]] = {
    "bare mpi4py, 2 workers": bare_mpi,
    "hpcpanda, 1 rank x 2": ours,
    "hpcpanda, 2 ranks x 1": ours_two_ranks,
    "ProcessPoolExecutor(2)": process_pool,
    "Parsl HTEX, 2 workers": parsl_executor,
    "HyperQueue, 2 processors": hyperqueue_tasks,
}


def main() -> None:
    """Run all in turn and print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(runs):
        for name, run in CONTENDERS.items():
            found[name].append(run())
    bare = statistics.median(found["bare mpi4py, 2 workers"])
    print(
        f"{'no-op ranges or tasks a second':32}{'median':>10}{'best':>10}{'to bare MPI':>14}   ({runs} runs in turn)"
    )
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"{name:32}{median:10,.0f}{max(rates):10,.0f}{median / bare:14.3f}")


if __name__ == "__main__":
    main()
