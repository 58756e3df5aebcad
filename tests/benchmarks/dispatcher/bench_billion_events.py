"""A task of a billion events, leased and committed in pieces of 10^5 over the real HTTP API.

Prints what it costs: time a commit, and whether that stays flat; rows and bytes in the database;
memory of the dispatcher. Run: ``python tests/benchmarks/dispatcher/bench_billion_events.py``.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.dispatcher import RunningDispatcher, running_dispatcher, spec

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.exchange import Capacity, LeaseCommit, LeaseGrant, SyncRequest
from hpcpanda.domain.intervals import IntervalSet

EVENT_SECONDS = 0.001
INSTANCE = "local-1"
TABLES = ("tasks", "task_specs", "ready_ranges", "leases", "failed_events", "edges", "tokens")


@dataclass
class Timings:
    """Seconds of each request, and commits in each."""

    acquire: list[float] = field(default_factory=list)
    sync: list[float] = field(default_factory=list)


def acquire(edge: DispatcherClient, events: int, timings: Timings) -> LeaseGrant | None:
    capacity = Capacity(instance=INSTANCE, cores=1, seconds=events * EVENT_SECONDS)
    start = time.perf_counter()
    grants = edge.acquire("local", capacity).leases
    timings.acquire.append(time.perf_counter() - start)
    return grants[0] if grants else None


def commits_of(lease: LeaseGrant, events: int) -> list[LeaseCommit]:
    """The lease's events in commits of at most so many events."""
    first, end = lease.events.bounds
    return [
        LeaseCommit(
            task_id=lease.task_id,
            epoch=lease.epoch,
            done=IntervalSet.span(a, min(a + events, end)),
            core_seconds=(min(a + events, end) - a) * EVENT_SECONDS,
        )
        for a in range(first, end, events)
    ]


def run(edge: DispatcherClient, *, lease_events: int, commit_events: int, batch: int) -> Timings:
    """Lease and commit until nothing is left, ``batch`` commits a request."""
    timings = Timings()
    waiting: list[LeaseCommit] = []

    def flush() -> None:
        start = time.perf_counter()
        reply = edge.sync("local", SyncRequest(instance=INSTANCE, commits=tuple(waiting)))
        timings.sync.append(time.perf_counter() - start)
        assert all(r.accepted == c.done for r, c in zip(reply.commits, waiting, strict=True))
        waiting.clear()

    while lease := acquire(edge, lease_events, timings):
        for update in commits_of(lease, commit_events):
            waiting.append(update)
            if len(waiting) == batch:
                flush()
    if waiting:
        flush()
    return timings


def rss_mb(dispatcher: RunningDispatcher) -> float:
    status = Path(f"/proc/{dispatcher.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def report(title: str, timings: Timings, commits: int) -> None:
    tenth = max(1, len(timings.sync) // 10)
    first, last = timings.sync[:tenth], timings.sync[-tenth:]
    total = sum(timings.sync)
    print(f"{title}: {commits} commits in {len(timings.sync)} syncs, {total:.1f} s of sync")
    print(f"  {commits / total:.0f} commits/s; {1e3 * mean(timings.sync):.2f} ms a sync")
    print(f"  first tenth {1e3 * median(first):.2f} ms, last tenth {1e3 * median(last):.2f} ms (medians)")
    tenth = max(1, len(timings.acquire) // 10)
    first, last = timings.acquire[:tenth], timings.acquire[-tenth:]
    print(
        f"  {len(timings.acquire)} acquires: first tenth {1e3 * median(first):.2f} ms, "
        f"last tenth {1e3 * median(last):.2f} ms (medians)"
    )


def main() -> None:
    """Run the scenarios and print their figures."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--events", type=int, default=10**9)
    arguments.add_argument("--commit-events", type=int, default=10**5)
    arguments.add_argument("--lease-events", type=int, default=10**6)
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 100, 5000])
    chosen = arguments.parse_args()
    for batch in chosen.batches:
        with tempfile.TemporaryDirectory() as folder:
            scenario(Path(folder) / "state", chosen, batch)


def scenario(state: Path, chosen: argparse.Namespace, batch: int) -> None:
    with (
        running_dispatcher(state, lease_seconds=86_400) as dispatcher,
        dispatcher.user() as user,
        dispatcher.edge() as edge,
    ):
        before = rss_mb(dispatcher)
        start = time.perf_counter()
        task_id = user.submit(spec(chosen.events, event_seconds=EVENT_SECONDS)).task_id
        print(f"accepted {chosen.events:.0e} events in {1e3 * (time.perf_counter() - start):.1f} ms")
        timings = run(edge, lease_events=chosen.lease_events, commit_events=chosen.commit_events, batch=batch)
        task = user.task(task_id)
        assert task.progress.done == chosen.events, task.progress
        report(f"{batch} a sync", timings, -(-chosen.events // chosen.commit_events))
        with sqlite3.connect(dispatcher.settings.database_file) as database:
            rows = {t: database.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in TABLES}
        size = dispatcher.settings.database_file.stat().st_size / 2**20
        print(f"  rows {sum(rows.values())} ({rows}), {size:.1f} MiB on disk")
        print(f"  dispatcher RSS {before:.0f} -> {rss_mb(dispatcher):.0f} MiB")


if __name__ == "__main__":
    main()
