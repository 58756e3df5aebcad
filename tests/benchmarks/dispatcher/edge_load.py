"""Simulated edges: each leases work in bulk, finishes it bit by bit and out of order, and says so in syncs."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.dispatcher.figures import Tally, own_cpu
from benchmarks.dispatcher.lean_http import Connection, Reply

JOB_SECONDS = 1800.0
"""What a job takes, on one core, and for how long the simulated edges offer their cores."""
WALLTIME_S = 2 * JOB_SECONDS
"""What a job asks for: of jobs never measured, half of it is taken for their length."""
GRAINS = 50
"""Pieces of a lease that end one after the other, in an order that is shuffled."""
FAILING = 0.001
"""Part of the jobs that fail for good."""
TRIES = 5
"""So often a request is sent until it is answered."""
ROOM = {"cores": 64, "memory_mb": 250_000, "nodes": 100, "seconds": 86_400.0}
JSON_HEAD = {"separators": (",", ":")}


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgePlan:
    """What the edges of one generator do."""

    urls: Sequence[str]
    edges: Sequence[tuple[str, str]]
    seconds: float
    """None of them begins anything after so long; a lease that is begun is finished."""
    jobs: int
    """Jobs or events in one request for work."""
    syncs: int
    """Syncs in which a lease is worked off."""
    rate: float | None = None
    """Jobs a second of all edges together; as many as the dispatcher bears when None."""
    event_seconds: float | None = None
    """The edges work on events of this cost, instead of jobs."""
    until_empty: bool = False
    """An edge that gets nothing stops."""
    seed: int = 1


@dataclass(slots=True)
class Edge:
    """One edge, one request at a time."""

    plan: EdgePlan
    name: str
    connection: Connection
    tally: Tally
    chance: random.Random
    path: bytes = field(init=False)
    instance: str = field(init=False)
    slept: int = 0

    def __post_init__(self) -> None:
        self.path = f"/v1/edges/{self.name}".encode()
        self.instance = f"{self.name}-i"

    async def live(self, first_at: float, end_at: float, period_s: float) -> None:
        """Lease and finish until it is time to stop, ``period_s`` for a round; at once when that is 0."""
        at = first_at
        while at < end_at and time.monotonic() < end_at:
            await _sleep_until(at)
            leases = await self._lease(at if period_s else time.monotonic())
            step = period_s / (self.plan.syncs + 1)
            for n, commits in enumerate(self._portions(leases), start=1):
                due = at + n * step
                await _sleep_until(due)
                await self._sync(leases, commits, due if period_s else time.monotonic())
            if not leases and self.plan.until_empty:
                return
            if not leases:
                await asyncio.sleep(max(0.05, period_s / 2))
            at = at + period_s if period_s else time.monotonic()

    async def register(self) -> None:
        """Introduce itself."""
        said = {"instance": self.instance, "cores": 100_000, "version": "load"}
        await self._ask("register", b"PUT", self.path, said, time.monotonic())

    async def _lease(self, due: float) -> list[dict[str, Any]]:
        plan = self.plan
        asked: dict[str, Any] = {"instance": self.instance}
        if plan.event_seconds is None:
            asked |= {"cores": plan.jobs, "seconds": JOB_SECONDS, "only": "jobs", "room": ROOM}
        else:
            asked |= {"cores": 1, "seconds": plan.jobs * plan.event_seconds, "only": "events"}
        reply = await self._ask("lease", b"POST", self.path + b"/leases", asked, due)
        leases: list[dict[str, Any]] = reply.json()["leases"] if reply else []
        self.tally.leased += sum(_count(lease["events"]["bounds"]) for lease in leases)
        return leases

    def _portions(self, leases: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """The commits of each sync, all of the leases in all of them together."""
        plan = self.plan
        portions: list[list[dict[str, Any]]] = [[] for _ in range(plan.syncs)] if leases else []
        for lease in leases:
            pieces = _pieces(lease["events"]["bounds"])
            self.chance.shuffle(pieces)
            share = -(-len(pieces) // plan.syncs)
            for n in range(plan.syncs):
                if mine := sorted(pieces[n * share : (n + 1) * share]):
                    portions[n].append(self._commit(lease, mine))
        return iter([portion for portion in portions if portion])

    def _commit(self, lease: dict[str, Any], pieces: list[tuple[int, int]]) -> dict[str, Any]:
        count = sum(last - first for first, last in pieces)
        each = self.plan.event_seconds or JOB_SECONDS
        failed: list[dict[str, Any]] = []
        first, last = pieces[0]
        if self.plan.event_seconds is None and last - first > 1 and self.chance.random() < count * FAILING:
            failed.append({"event": first, "error": "exit status 1: the payload gave up", "attempts": 3})
            pieces = [(first + 1, last), *pieces[1:]]
        return {
            "task_id": lease["task_id"],
            "epoch": lease["epoch"],
            "done": {"bounds": _joined(pieces)},
            "failed": failed,
            "core_seconds": (count - len(failed)) * each,
        }

    async def _sync(self, leases: list[dict[str, Any]], commits: list[dict[str, Any]], due: float) -> None:
        tasks = {lease["task_id"] for lease in leases}
        said = {
            "instance": self.instance,
            "commits": commits,
            "activity": [
                {"task_id": t, "cores": self.plan.jobs, "cores_busy": 0.9 * self.plan.jobs} for t in tasks
            ],
        }
        reply = await self._ask("sync", b"POST", self.path + b"/sync", said, due)
        for result in reply.json()["commits"] if reply else ():
            accepted = _count(result["accepted"]["bounds"])
            self.tally.finished += accepted
            self.tally.settled.append((time.monotonic(), accepted))
            if result["refused"]["bounds"]:
                self.tally.errors["refused commit"] += 1

    async def _ask(
        self, kind: str, method: bytes, path: bytes, said: dict[str, Any], due: float
    ) -> Reply | None:
        """Ask until it is answered, as an edge does; what goes wrong is counted each time."""
        body = json.dumps(said, **JSON_HEAD).encode()
        for _ in range(TRIES):
            try:
                reply = await self.connection.request(method, path, body)
            except (OSError, TimeoutError) as problem:
                self.tally.errors[f"{kind}: {problem!r}"] += 1
                continue
            self.tally.times[kind].append(time.monotonic() - due)
            if reply.status == 200:
                return reply
            self.tally.errors[f"{kind}: {reply.status} {reply.body[:200].decode(errors='replace')}"] += 1
            await asyncio.sleep(1.0)
        return None


def drive_edges(plan: EdgePlan) -> Tally:
    """Let the edges work for as long as the plan says; in a process of its own."""
    return asyncio.run(_drive(plan))


async def _drive(plan: EdgePlan) -> Tally:
    tally, chance = Tally(), random.Random(plan.seed)
    edges = [
        Edge(
            plan, name, Connection(plan.urls[n % len(plan.urls)], token), tally, random.Random(plan.seed + n)
        )
        for n, (name, token) in enumerate(plan.edges)
    ]
    for start in range(0, len(edges), 20):
        await asyncio.gather(*(edge.register() for edge in edges[start : start + 20]))
    tally.times.clear()
    period = plan.jobs * len(edges) / plan.rate if plan.rate else 0.0
    cpu, began = own_cpu(), time.monotonic()
    ends = began + plan.seconds
    # edges know nothing of each other: each begins somewhere in its round
    await asyncio.gather(*(edge.live(began + period * chance.random(), ends, period) for edge in edges))
    tally.cpu_s, tally.wall_s = own_cpu() - cpu, time.monotonic() - began
    since = began + min(period, plan.seconds / 2)
    tally.rate = sum(n for at, n in tally.settled if since < at <= ends) / (ends - since)
    for edge in edges:
        edge.connection.close()
    return tally


async def _sleep_until(at: float) -> None:
    if (left := at - time.monotonic()) > 0:
        await asyncio.sleep(left)


def _count(bounds: Sequence[int]) -> int:
    return sum(bounds[1::2]) - sum(bounds[::2])


def _pieces(bounds: Sequence[int]) -> list[tuple[int, int]]:
    """The ranges cut into some ``GRAINS`` pieces."""
    grain = max(1, _count(bounds) // GRAINS)
    return [
        (first, min(first + grain, last))
        for start, last in zip(bounds[::2], bounds[1::2], strict=True)
        for first in range(start, last, grain)
    ]


def _joined(pieces: Sequence[tuple[int, int]]) -> list[int]:
    """Sorted pieces as bounds."""
    bounds: list[int] = []
    for first, last in pieces:
        if bounds and bounds[-1] == first:
            bounds[-1] = last
        else:
            bounds += (first, last)
    return bounds
