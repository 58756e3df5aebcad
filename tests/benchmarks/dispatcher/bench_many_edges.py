"""Ten thousand registered edges that sync once a minute: how much of a processor that takes.

Each sync comes on a new connection and says what the edge is doing for two tasks. Only some of the minute is measured.

Run: ``python -m tests.benchmarks.dispatcher.bench_many_edges [sqlite|postgresql] [--edges N] [--seconds S]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.dispatcher.figures import Tally, own_cpu
from benchmarks.dispatcher.lean_http import Connection
from benchmarks.dispatcher.small_calls import small_task
from benchmarks.dispatcher.world import Bearer, World, running_world

from hpcpanda.dispatcher.store.opening import open_database
from hpcpanda.dispatcher.store.sites import EdgeRecord
from hpcpanda.dispatcher.store.unit import Store

EVERY_S = 60.0
"""Between two syncs of an edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeats:
    """Who syncs, and how often."""

    url: str
    edges: Sequence[Bearer]
    task_ids: Sequence[int]
    per_second: float
    seconds: float


def beat(plan: Heartbeats) -> Tally:
    """Sync one edge after the other at a steady rate; in a process of its own."""
    return asyncio.run(_beat(plan))


async def _beat(plan: Heartbeats) -> Tally:
    tally = Tally()
    cpu, began = own_cpu(), time.monotonic()
    calls: list[asyncio.Task[None]] = []
    for n in range(int(plan.seconds * plan.per_second)):
        due = began + n / plan.per_second
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        calls.append(asyncio.create_task(_sync(plan, plan.edges[n % len(plan.edges)], due, tally)))
    await asyncio.gather(*calls)
    tally.cpu_s, tally.wall_s = own_cpu() - cpu, time.monotonic() - began
    return tally


async def _sync(plan: Heartbeats, edge: Bearer, due: float, tally: Tally) -> None:
    name, token = edge
    connection = Connection(plan.url, token)
    doing = [{"task_id": task_id, "cores": 100, "cores_busy": 90.0} for task_id in plan.task_ids]
    body = json.dumps({"instance": f"{name}-i", "activity": doing}).encode()
    try:
        reply = await connection.request(b"POST", f"/v1/edges/{name}/sync".encode(), body)
    except (OSError, TimeoutError) as problem:
        tally.errors[type(problem).__name__] += 1
    else:
        tally.times["sync"].append(time.monotonic() - due)
        if reply.status != 200:
            tally.errors[f"{reply.status} {reply.body[:200].decode(errors='replace')}"] += 1
    finally:
        connection.close()


def run(database: str, *, edges: int, seconds: float) -> Tally:
    """Register the edges, let them sync, print the figures."""
    with running_world(database) as world:
        bearers = world.bearers("edge", edges)
        ((_, user),) = world.bearers("user", 1)
        asyncio.run(_register(world, bearers))
        task_ids = asyncio.run(_submit(world.urls[0], user))
        plan = Heartbeats(
            url=world.urls[0], edges=bearers, task_ids=task_ids, per_second=edges / EVERY_S, seconds=seconds
        )
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as generator:
            list(generator.map(abs, range(2)))  # it is up
            before = (world.dispatcher_cpu(), world.database_cpu())
            tally = generator.submit(beat, plan).result()
            used = (world.dispatcher_cpu() - before[0], world.database_cpu() - before[1])
        print(
            f"{database}: {edges} edges, each one sync a minute, {plan.per_second:.0f} a second: dispatcher "
            f"{100 * used[0] / tally.wall_s:.1f} % of a core, database {100 * used[1] / tally.wall_s:.1f} %, "
            f"generator {100 * tally.cpu_s / tally.wall_s:.1f} %; dispatcher holds {world.memory_mb():.0f} MiB"
        )
        print("\n".join(tally.lines(("sync",))), f"\n    errors: {dict(tally.errors) or 'none'}")
    return tally


async def _register(world: World, bearers: Sequence[Bearer]) -> None:
    """As if each had introduced itself, in one transaction."""
    database = open_database(world.replicas[0].settings)
    try:
        async with Store(database).writing() as uow:
            for name, _ in bearers:
                record = EdgeRecord(
                    name=name, instance=f"{name}-i", cores=1000, version="load", last_seen=0.0
                )
                await uow.edges.put(record)
                await uow.sites.register(name, None, ())
    finally:
        await database.close()


async def _submit(url: str, token: str) -> list[int]:
    connection = Connection(url, token)
    bodies = [json.dumps(small_task(f"task-{n}", jobs=10**6)).encode() for n in range(2)]
    replies = [await connection.request(b"POST", b"/v1/tasks", body) for body in bodies]
    connection.close()
    return [reply.json()["task_id"] for reply in replies]


def main() -> None:
    """Measure as the command line says."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("database", nargs="?", choices=("sqlite", "postgresql"), default="postgresql")
    words.add_argument("--edges", type=int, default=10_000)
    words.add_argument("--seconds", type=float, default=30.0)
    said = words.parse_args()
    run(said.database, edges=said.edges, seconds=said.seconds)


if __name__ == "__main__":
    main()
