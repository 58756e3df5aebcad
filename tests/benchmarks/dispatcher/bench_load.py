"""Jobs leased and finished a second through the real HTTP API, and how long small calls take meanwhile.

Simulated edges lease jobs in bulk and commit them in syncs, first at a steady rate, then as fast as they are
answered; users and idle edges make small calls beside them at a steady rate. Dispatchers, database, edges and users
are processes of their own on this machine.

Run: ``python -m tests.benchmarks.dispatcher.bench_load [sqlite|postgresql] [--replicas N] [--edges N] [--seconds S]``.
Without a database both are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.dispatcher.edge_load import EdgePlan, drive_edges
from benchmarks.dispatcher.figures import Tally, percentile
from benchmarks.dispatcher.lean_http import Connection
from benchmarks.dispatcher.small_calls import MIX, CallPlan, make_calls, small_task
from benchmarks.dispatcher.world import Bearer, World, running_world

USERS = 10
TASKS_OF_USER = 2
IDLE = 100
"""Edges that only say that they are there."""
WARM_SECONDS = 3.0
"""Load before anything is measured: a dispatcher compiles statements and models when it first needs them."""
BIG = 5_000_000
"""Jobs of each of the users' large tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of the dispatcher."""

    edges: int = 40
    seconds: float = 20.0
    """Of each part of the measurement."""
    jobs: int = 1000
    """Of one request for work."""
    syncs: int = 4
    """In which they are reported."""
    rate: float = 10_500.0
    """Jobs a second, in the first part."""
    calls: float = 60.0
    """Small calls a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One part of a measurement."""

    edges: Tally
    calls: Tally
    dispatcher_cpu: float
    """Cores used."""
    database_cpu: float
    wall_s: float

    @property
    def rate(self) -> float:
        """Jobs finished a second."""
        return self.edges.rate

    def report(self, title: str) -> str:
        """For people."""
        edges, calls = self.edges, self.calls
        per_1000 = 1e6 / max(1, edges.finished) * self.wall_s
        errors = edges.errors + calls.errors
        head = (
            f"  {title}: {self.rate:.0f} jobs/s leased and finished in {edges.calls / edges.wall_s:.0f} bulk calls/s, "
            f"{calls.calls / calls.wall_s:.0f} small calls/s"
        )
        cores = (
            f"    cores used: dispatcher {self.dispatcher_cpu:.2f}, database {self.database_cpu:.2f}, "
            f"generators {(edges.cpu_s + calls.cpu_s) / edges.wall_s:.2f}; "
            f"of 1000 jobs: dispatcher {per_1000 * self.dispatcher_cpu:.1f} ms, "
            f"database {per_1000 * self.database_cpu:.1f} ms"
        )
        small = f"    all small calls: p99 {1e3 * self.small_p99:.1f} ms; errors: {dict(errors) or 'none'}"
        lines = [head, cores, *edges.lines(("lease", "sync")), *calls.lines(MIX), small]
        return "\n".join(lines)

    @property
    def small_p99(self) -> float:
        """Seconds in which all but one in a hundred of all small calls were answered."""
        return percentile([s for seconds in self.calls.times.values() for s in seconds], 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Who makes calls."""

    users: list[Bearer]
    edges: list[Bearer]
    idle: list[Bearer]
    task_ids: list[int]


def prepare(world: World, load: Load) -> Callers:
    """Tokens, large tasks, idle edges that are registered."""
    users = world.bearers("user", USERS)
    edges = world.bearers("edge", load.edges + IDLE)
    return Callers(
        users=users,
        edges=edges[: load.edges],
        idle=edges[load.edges :],
        task_ids=asyncio.run(_open(world.urls[0], users, edges[load.edges :])),
    )


async def _open(url: str, users: list[Bearer], idle: list[Bearer]) -> list[int]:
    task_ids = []
    for name, token in users:
        connection = Connection(url, token)
        for n in range(TASKS_OF_USER):
            body = json.dumps(small_task(f"{name}-{n}", jobs=BIG, priority=1)).encode()
            task_ids.append((await connection.request(b"POST", b"/v1/tasks", body)).json()["task_id"])
        connection.close()
    for name, token in idle:
        connection = Connection(url, token)
        said = {"instance": f"{name}-i", "cores": 1000}
        await connection.request(b"PUT", f"/v1/edges/{name}".encode(), json.dumps(said).encode())
        connection.close()
    return task_ids


def measure(world: World, callers: Callers, load: Load, *, rate: float | None) -> Measured:
    """Put the load on for its time."""
    edges = EdgePlan(
        urls=world.urls,
        edges=callers.edges,
        seconds=load.seconds,
        jobs=load.jobs,
        syncs=load.syncs,
        rate=rate,
    )
    calls = CallPlan(
        urls=world.urls,
        users=callers.users,
        edges=callers.idle,
        task_ids=callers.task_ids,
        seconds=load.seconds,
        per_second=load.calls,
    )
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as generators:
        list(generators.map(abs, range(4)))  # they are up
        before, began = (world.dispatcher_cpu(), world.database_cpu()), time.monotonic()
        done = [generators.submit(drive_edges, edges), generators.submit(make_calls, calls)]
        tallies = [one.result() for one in done]
        wall_s = time.monotonic() - began
        used = [
            now - then
            for now, then in zip((world.dispatcher_cpu(), world.database_cpu()), before, strict=True)
        ]
    return Measured(
        edges=tallies[0],
        calls=tallies[1],
        dispatcher_cpu=used[0] / wall_s,
        database_cpu=used[1] / wall_s,
        wall_s=wall_s,
    )


def run(database: str, load: Load, *, replicas: int = 1) -> list[Measured]:
    """Measure one kind of database, print the figures, check that nothing was counted twice or lost."""
    print(
        f"{database}, {replicas} dispatcher(s), {load.edges} edges that ask for {load.jobs} jobs at a time and report "
        f"them in {load.syncs} syncs"
    )
    with running_world(database, replicas=replicas) as world:
        callers = prepare(world, load)
        warm = measure(world, callers, replace(load, seconds=min(WARM_SECONDS, load.seconds)), rate=load.rate)
        steady = measure(world, callers, load, rate=load.rate)
        print(steady.report("steady"), flush=True)
        flat_out = measure(world, callers, load, rate=None)
        print(flat_out.report("flat out"), flush=True)
        counted, leases = world.counted()
        finished = warm.edges.finished + steady.edges.finished + flat_out.edges.finished
        print(
            f"  {counted} jobs are settled in the tables, {finished} were answered for; {leases} leases; "
            f"dispatchers hold {world.memory_mb():.0f} MiB"
        )
        assert counted == finished, "what was answered is not what is in the tables"
    return [steady, flat_out]


def main() -> None:
    """Measure as the command line says."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("database", nargs="?", choices=("sqlite", "postgresql"))
    words.add_argument("--replicas", type=int, default=1)
    for name, default in (("edges", 40), ("jobs", 1000), ("syncs", 4)):
        words.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("seconds", 20.0), ("rate", 10_000.0), ("calls", 60.0)):
        words.add_argument(f"--{name}", type=float, default=default)
    said = words.parse_args()
    names = [field.name for field in fields(Load)]
    load = Load(**{name: getattr(said, name) for name in names})
    for database in [said.database] if said.database else ["postgresql", "sqlite"]:
        run(database, load, replicas=said.replicas)


if __name__ == "__main__":
    main()
