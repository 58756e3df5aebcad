"""Host jobs for tests: small traces, a slow EASY to compare with, and a way to drive machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from hypothesis import strategies as st

from hpcpanda.simulate.machines.host_alone import HostSchedule
from hpcpanda.simulate.machines.host_machine import HostMachine
from hpcpanda.simulate.ports import AllocationEvent
from hpcpanda.simulate.trace import HostTrace

MACHINE = 10

Job = tuple[int, int, int, int]
"""Submission, nodes, run, requested."""


def trace_of(jobs: Sequence[Job], *, nodes: int = MACHINE, start: Sequence[float] | None = None) -> HostTrace:
    """A trace of jobs in order of submission."""
    columns = np.array(jobs, dtype=float).reshape(-1, 4)
    return HostTrace(
        submit=columns[:, 0],
        nodes=columns[:, 1].astype(np.int64),
        run=columns[:, 2],
        requested=columns[:, 3],
        start=np.full(len(columns), np.nan) if start is None else np.array(start, dtype=float),
        machine_nodes=nodes,
        epoch=0.0,
        source="a test",
    )


@st.composite
def host_traces(draw: st.DrawFn, most: int = 25) -> HostTrace:
    """Traces of whole seconds on a small machine, so busy that jobs wait."""
    count = draw(st.integers(1, most))
    gaps = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    nodes = draw(st.lists(st.integers(1, MACHINE), min_size=count, max_size=count))
    runs = draw(st.lists(st.integers(1, 40), min_size=count, max_size=count))
    over = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
    submits = np.cumsum(gaps) - gaps[0]
    rows = zip(submits.tolist(), nodes, runs, over, strict=True)
    return trace_of([(at, n, run, run + more) for at, n, run, more in rows])


def slow_easy(trace: HostTrace) -> list[float]:
    """Starts under EASY, by looking at everything anew at each instant; written from the papers, not from the code."""
    count = len(trace)
    start: list[float | None] = [None] * count
    instants = {float(t) for t in trace.submit}
    while instants:
        now = min(instants)
        instants.discard(now)
        running = [j for j in range(count) if start[j] is not None and start[j] + trace.run[j] > now]
        free = trace.machine_nodes - sum(int(trace.nodes[j]) for j in running)
        queue = [j for j in range(count) if start[j] is None and trace.submit[j] <= now]
        begun = []
        while queue and trace.nodes[queue[0]] <= free:
            job = queue.pop(0)
            free -= int(trace.nodes[job])
            start[job] = now
            begun.append(job)
        if queue:
            ends = sorted(
                (start[j] + float(trace.requested[j]), int(trace.nodes[j])) for j in [*running, *begun]
            )
            shadow, room = _reservation(ends, free, int(trace.nodes[queue[0]]))
            for job in queue[1:]:
                nodes = int(trace.nodes[job])
                short = now + trace.requested[job] <= shadow
                if nodes <= free and (short or nodes <= room):
                    free -= nodes
                    room -= 0 if short else nodes
                    start[job] = now
                    begun.append(job)
        instants |= {now + float(trace.run[j]) for j in begun}
    return [float(s) for s in start if s is not None]


def _reservation(ends: list[tuple[float, int]], free: int, nodes: int) -> tuple[float, int]:
    """When so many nodes are free, and how many more are then."""
    for shadow in sorted({end for end, _ in ends}):
        by_then = free + sum(n for end, n in ends if end <= shadow)
        if by_then >= nodes:
            return shadow, by_then - nodes
    raise AssertionError("the job is larger than the machine")


@dataclass(frozen=True)
class Ask:
    """Something we do at a time: submit, or end the n-th allocation."""

    at: int
    what: Literal["submit", "end"]
    nodes: int = 1
    walltime: int = 1


asks = st.lists(
    st.one_of(
        st.builds(Ask, st.integers(0, 200), st.just("submit"), st.integers(1, MACHINE), st.integers(1, 60)),
        st.builds(Ask, st.integers(0, 200), st.just("end"), st.integers(0, 10)),
    ),
    max_size=12,
)


def drive(machine: HostMachine, what: Iterable[Ask]) -> list[AllocationEvent]:
    """Do all that, telling what happens."""
    events: list[AllocationEvent] = []
    for ask in sorted(what, key=lambda a: a.at):
        events += until(machine, ask.at)
        if ask.what == "submit":
            machine.submit(ask.nodes, ask.walltime)
        elif ask.nodes < len(machine.allocations):
            machine.end(ask.nodes)
    return [*events, *until(machine, 1000)]


def until(machine: HostMachine, at: float) -> list[AllocationEvent]:
    """Everything up to a time."""
    events: list[AllocationEvent] = []
    while True:
        told = machine.advance(at)
        events += told
        if not told and machine.now >= at:
            return events


def most_busy(trace: HostTrace, schedule: HostSchedule, machine: HostMachine | None = None) -> int:
    """The most nodes that are ever in use by the host and, with a machine, by us."""
    spans = list(zip(schedule.start.tolist(), schedule.end.tolist(), trace.nodes.tolist(), strict=True))
    if machine is not None:
        spans += [(a.start, a.end, a.nodes) for a in machine.allocations if a.start == a.start]
    changes = sorted([(s, 1, n) for s, _, n in spans] + [(e, 0, -n) for _, e, n in spans])
    busy = most = 0
    for _, _, change in changes:
        busy += change
        most = max(most, busy)
    return most
