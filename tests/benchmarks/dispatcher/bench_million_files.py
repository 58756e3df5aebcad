"""A task over a dataset of a million files, through the HTTP API: filling, submission, leases, memory.

``python -m benchmarks.dispatcher.bench_million_files [--files N] [--postgres]`` from the folder ``tests``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.dispatcher.figures import rss_mb
from support.dispatcher import running_dispatcher
from support.postgres import running_server

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.dataset import MAX_FILES, DatasetFile, Replica
from hpcpanda.domain.exchange import Capacity
from hpcpanda.domain.inputs import InputFormat, Inputs
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.task import Resources, TaskSpec

DID = "bench:million"
EVENTS = 1000
"""Of a file."""


def task(did: str) -> TaskSpec:
    return TaskSpec(
        name="million",
        payload=CommandPayload(command=("cp", "{input}", "{output}")),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
        inputs=Inputs(format=InputFormat.ROOT, container="Events", dataset=did),
        resources=Resources(event_seconds=1.0),
    )


def fill(client: DispatcherClient, did: str, files: int) -> float:
    """Make a closed dataset; gives the seconds that it took."""
    began = time.perf_counter()
    client.create_dataset(did)
    for start in range(0, files, MAX_FILES):
        client.add_files(
            did,
            [
                DatasetFile(
                    name=f"file.{n:08d}.root",
                    events=EVENTS,
                    size=500_000_000,
                    checksum=f"adler32:{n:08x}",
                    replicas=(
                        Replica(site="local", path=f"/data/bench/million/{n // 1000:05d}/file.{n:08d}.root"),
                    ),
                )
                for n in range(start, min(files, start + MAX_FILES))
            ],
        )
    client.close_dataset(did)
    return time.perf_counter() - began


def measure(user: DispatcherClient, edge: DispatcherClient, did: str) -> tuple[float, list[float], int]:
    """Seconds of submission, of twenty leases of a hundred files each, and files of the last."""
    began = time.perf_counter()
    task_id = user.submit(task(did)).task_id
    submitted = time.perf_counter() - began
    leases: list[float] = []
    files = 0
    for _ in range(20):
        began = time.perf_counter()
        capacity = Capacity(instance="local-1", cores=100, seconds=float(EVENTS), task_id=task_id)
        (grant,) = edge.acquire("local", capacity).leases
        leases.append(time.perf_counter() - began)
        assert grant.spec.inputs is not None
        files = len(grant.spec.inputs.files)
        assert sum(f.events for f in grant.spec.inputs.files) >= len(grant.events) == 100 * EVENTS
    return submitted, leases, files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings: dict[str, object] = {"lease_seconds": 3600.0}
        if chosen.postgres:
            settings["database"] = stack.enter_context(running_server()).create_database()
        dispatcher = stack.enter_context(running_dispatcher(folder / "state", **settings))
        user, edge = stack.enter_context(dispatcher.user()), stack.enter_context(dispatcher.edge())
        pid = [dispatcher.process.pid]
        print(f"dispatcher at its start: {rss_mb(pid):.0f} MB")
        fill(user, "bench:small", 2000)
        print("2000 files:")
        _report(*measure(user, edge, "bench:small"))
        seconds = fill(user, DID, chosen.files)
        print(
            f"{chosen.files} files: filled in {seconds:.1f} s, {chosen.files / seconds:.0f} files/s, {rss_mb(pid):.0f} MB"
        )
        _report(*measure(user, edge, DID))
        size = sum(p.stat().st_size for p in (folder / "state").glob("dispatcher.sqlite*"))
        print(f"afterwards {rss_mb(pid):.0f} MB; SQLite's files {size / 1e6:.0f} MB")


def _report(submitted: float, leases: list[float], files: int) -> None:
    print(
        f"  submitted in {submitted * 1000:.0f} ms; a lease of {files} files in {statistics.median(leases) * 1000:.1f} ms "
        f"(median of {len(leases)}, longest {max(leases) * 1000:.1f} ms)"
    )


if __name__ == "__main__":
    main()
