"""A task of a billion events, leased and committed by a thousand edges over the real HTTP API; and one of a million.

Both in as many leases and syncs: what a request costs, how many rows there are and what the dispatcher holds in memory
must not depend on the number of events.

Run: ``python -m tests.benchmarks.dispatcher.bench_billion_events [sqlite|postgresql]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.dispatcher.edge_load import EdgePlan, drive_edges
from benchmarks.dispatcher.figures import percentile
from benchmarks.dispatcher.lean_http import Connection
from benchmarks.dispatcher.world import running_world

EVENT_SECONDS = 0.001
SYNCS = 5
"""Syncs in which a lease is committed, scattered over it."""
MOST_SECONDS = 100.0


def run(database: str, *, events: int, edges: int, leases: int, spread_s: float) -> None:
    """One task, in so many leases; the edges begin over ``spread_s`` seconds."""
    with running_world(database) as world:
        ((_, user),) = world.bearers("user", 1)
        plan = EdgePlan(
            urls=world.urls,
            edges=world.bearers("edge", edges),
            seconds=MOST_SECONDS,
            jobs=events // leases,
            syncs=SYNCS,
            rate=events * edges / leases / spread_s,
            event_seconds=EVENT_SECONDS,
            until_empty=True,
        )
        task_id, accepted_s = asyncio.run(_submit(world.urls[0], user, events))
        memory, cpu, database_cpu = world.memory_mb(), world.dispatcher_cpu(), world.database_cpu()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as generator:
            tally = generator.submit(drive_edges, plan).result()
        cpu, database_cpu = world.dispatcher_cpu() - cpu, world.database_cpu() - database_cpu
        progress = asyncio.run(_progress(world.urls[0], user, task_id))
        rows = {name: n for name, n in world.rows().items() if name not in ("tokens", "edges", "sites")}
        print(
            f"{database}: {events:.0e} events accepted in {1e3 * accepted_s:.1f} ms; leased and committed by {edges} "
            f"edges in {tally.wall_s:.1f} s: {tally.finished / tally.wall_s:.3g} events/s, "
            f"{tally.calls / tally.wall_s:.0f} requests/s"
        )
        for kind in ("lease", "sync"):
            times = tally.times[kind]
            tenth = max(1, len(times) // 10)
            print(
                f"  {len(times)} of {kind}: median {1e3 * percentile(times, 0.5):.1f} ms; of the first tenth "
                f"{1e3 * percentile(times[:tenth], 0.5):.1f} ms, of the last {1e3 * percentile(times[-tenth:], 0.5):.1f} ms"
            )
        print(
            f"  a request takes the dispatcher {1e3 * cpu / tally.calls:.2f} ms of processor time, the database "
            f"{1e3 * database_cpu / tally.calls:.2f} ms; dispatcher {memory:.0f} -> {world.memory_mb():.0f} MiB"
        )
        print(
            f"  {sum(rows.values())} rows besides those of edges: {rows}; errors: {dict(tally.errors) or 'none'}"
        )
        assert progress["done"] == tally.finished, (progress, tally.finished)
        assert progress["done"] == events or tally.wall_s >= MOST_SECONDS, progress


async def _submit(url: str, token: str, events: int) -> tuple[int, float]:
    connection = Connection(url, token)
    said = {
        "name": "sand",
        "payload": {"form": "callable", "call": "module:function"},
        "output": {"file": "out.h5"},
        "events": events,
        "resources": {"event_seconds": EVENT_SECONDS},
    }
    began = time.monotonic()
    reply = await connection.request(b"POST", b"/v1/tasks", json.dumps(said).encode())
    took = time.monotonic() - began
    connection.close()
    assert reply.status == 201, reply
    return int(reply.json()["task_id"]), took


async def _progress(url: str, token: str, task_id: int) -> dict[str, int]:
    connection = Connection(url, token)
    reply = await connection.request(b"GET", f"/v1/tasks/{task_id}".encode())
    connection.close()
    progress: dict[str, int] = reply.json()["progress"]
    return progress


def main() -> None:
    """Measure as the command line says."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("database", nargs="?", choices=("sqlite", "postgresql"), default="postgresql")
    words.add_argument("--events", type=int, nargs="+", default=[10**6, 10**9])
    words.add_argument("--edges", type=int, default=1000)
    words.add_argument("--leases", type=int, default=1000)
    words.add_argument("--spread", type=float, default=12.0)
    said = words.parse_args()
    for events in said.events:
        run(said.database, events=events, edges=said.edges, leases=said.leases, spread_s=said.spread)


if __name__ == "__main__":
    main()
