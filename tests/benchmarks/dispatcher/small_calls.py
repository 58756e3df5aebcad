"""Small calls at a steady rate, as people and idle edges make them; each is timed from when it was due."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.dispatcher.edge_load import WALLTIME_S
from benchmarks.dispatcher.figures import Tally, own_cpu
from benchmarks.dispatcher.lean_http import Connection

MIX = {"task": 40, "listing": 15, "explain": 10, "submit": 10, "heartbeat": 25}
"""Of a hundred calls."""
CONNECTIONS = 40
"""Most calls on their way at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """Which calls are made."""

    urls: Sequence[str]
    users: Sequence[tuple[str, str]]
    edges: Sequence[tuple[str, str]]
    """Registered before; they do nothing but say that they are there."""
    task_ids: Sequence[int]
    seconds: float
    per_second: float
    seed: int = 2


def make_calls(plan: CallPlan) -> Tally:
    """Make them; in a process of its own."""
    return asyncio.run(_make(plan))


def small_task(name: str, *, jobs: int, priority: int = 0) -> dict[str, Any]:
    """A task of jobs on one core each, as JSON."""
    return {
        "name": name,
        "payload": {"form": "job", "command": ["simulate", "--seed", "{seed}", "--job", "{job}"]},
        "output": {"file": "out.zip", "format": "zip"},
        "jobs": jobs,
        "job": {"cores": 1, "walltime_s": WALLTIME_S},
        "priority": priority,
        "loss": {"max_failed_events": jobs},
    }


async def _make(plan: CallPlan) -> Tally:
    tally, chance = Tally(), random.Random(plan.seed)
    users: asyncio.Queue[Connection] = asyncio.Queue()
    edges: asyncio.Queue[tuple[str, Connection]] = asyncio.Queue()
    for n in range(CONNECTIONS):
        url = plan.urls[n % len(plan.urls)]
        users.put_nowait(Connection(url, plan.users[n % len(plan.users)][1]))
        name, token = plan.edges[n % len(plan.edges)]
        edges.put_nowait((name, Connection(url, token)))
    kinds = [kind for kind, weight in MIX.items() for _ in range(weight)]
    cpu, began = own_cpu(), time.monotonic()
    calls: list[asyncio.Task[None]] = []
    for n in itertools.count():
        due = began + n / plan.per_second
        if due >= began + plan.seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        calls.append(asyncio.create_task(_call(plan, chance.choice(kinds), chance, users, edges, due, tally)))
    await asyncio.gather(*calls)
    tally.cpu_s, tally.wall_s = own_cpu() - cpu, time.monotonic() - began
    return tally


async def _call(
    plan: CallPlan,
    kind: str,
    chance: random.Random,
    users: asyncio.Queue[Connection],
    edges: asyncio.Queue[tuple[str, Connection]],
    due: float,
    tally: Tally,
) -> None:
    task = str(chance.choice(plan.task_ids)).encode()
    request: dict[str, tuple[bytes, bytes, dict[str, Any] | None]] = {
        "task": (b"GET", b"/v1/tasks/" + task, None),
        "listing": (b"GET", b"/v1/tasks?limit=20", None),
        "explain": (b"GET", b"/v1/tasks/" + task + b"/explain", None),
        "submit": (b"POST", b"/v1/tasks", small_task("small", jobs=10)),
    }
    name = ""
    if kind == "heartbeat":
        name, connection = await edges.get()
        said: dict[str, Any] = {"instance": f"{name}-i", "activity": []}
        method, path, body = b"POST", f"/v1/edges/{name}/sync".encode(), json.dumps(said).encode()
    else:
        connection = await users.get()
        method, path, content = request[kind]
        body = None if content is None else json.dumps(content).encode()
    try:
        reply = await connection.request(method, path, body)
        tally.times[kind].append(time.monotonic() - due)
        if reply.status not in (200, 201):
            tally.errors[f"{kind}: {reply.status} {reply.body[:200].decode(errors='replace')}"] += 1
    except (OSError, TimeoutError) as problem:
        tally.errors[f"{kind}: {type(problem).__name__}"] += 1
    finally:
        if kind == "heartbeat":
            edges.put_nowait((name, connection))
        else:
            users.put_nowait(connection)
