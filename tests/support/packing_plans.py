"""What a plan does, checked without the code that made it: rooms kept, jobs whole, time held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcpanda.packing.tables import Floats, Ints, JobTable, NodeTable, Placement

RESOURCES = ("cores", "memory_mb", "gpus", "disk_mb")
_SAME = 1e-6
"""Seconds by which times may be off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """Job by node: a job of three nodes has three rows."""

    job: Ints
    node: Ints
    start: Floats
    end: Floats


def stays(jobs: JobTable, plan: Placement) -> Stays:
    """Where and when everything that has a place is."""
    job = np.flatnonzero(plan.placed)
    node = plan.node[job]
    wide = [(j, n) for j, others in plan.others.items() for n in others]
    job = np.concatenate([job, np.array([j for j, _ in wide], np.int64)])
    node = np.concatenate([node, np.array([n for _, n in wide], np.int64)])
    start = plan.start[job]
    return Stays(job=job, node=node, start=start, end=start + jobs.seconds[job])


def check(jobs: JobTable, nodes: NodeTable, plan: Placement) -> None:
    """Fail when a job is outside its node's or its own times, lacks nodes, or any node is overfull at any time."""
    there = stays(jobs, plan)
    placed = np.flatnonzero(plan.placed)
    assert ((there.node >= 0) & (there.node < len(nodes))).all(), "a node that does not exist"
    assert len(np.unique(np.stack([there.job, there.node]), axis=1).T) == len(there.job), "twice on a node"
    assert (np.bincount(there.job, minlength=len(jobs))[placed] == jobs.nodes[placed]).all(), "nodes missing"
    assert (there.start >= nodes.free_from[there.node] - _SAME).all(), "before its node is free"
    assert (there.end <= nodes.free_until[there.node] + _SAME).all(), "after its node is free"
    assert (there.start >= jobs.not_before[there.job] - _SAME).all(), "too early"
    assert (there.end <= jobs.deadline[there.job] + _SAME).all(), "after its deadline"
    wide = jobs.nodes[there.job] > 1
    for resource in RESOURCES:
        capacity = getattr(nodes, resource)[there.node]
        demand = getattr(jobs, resource)[there.job]
        assert (demand <= capacity).all(), f"{resource}: more than its node has"
        _check_level(there, np.where(wide, capacity, demand), getattr(nodes, resource), resource)
    _check_level(there, np.where(wide, len(jobs), 1), np.full(len(nodes), len(jobs)), "whole nodes")


def _check_level(there: Stays, demand: Ints, capacity: Ints, what: str) -> None:
    """The sum of demands on each node, event by event, ends before starts."""
    node = np.concatenate([there.node, there.node])
    time = np.concatenate([there.start + _SAME, there.end])
    change = np.concatenate([demand, -demand])
    order = np.lexsort((time, node))
    level = np.cumsum(change[order])
    assert (level <= capacity[node[order]]).all(), f"{what}: a node is overfull"


def held_seconds(jobs: JobTable, plan: Placement) -> float:
    """Time of all used nodes, each from its first start to its last end."""
    there = stays(jobs, plan)
    used, row = np.unique(there.node, return_inverse=True)
    first, last = np.full(len(used), np.inf), np.zeros(len(used))
    np.minimum.at(first, row, there.start)
    np.maximum.at(last, row, there.end)
    return float((last - first).sum())
