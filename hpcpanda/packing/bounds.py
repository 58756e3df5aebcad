"""Lower bounds: how few nodes, and how little node time, any plan for given jobs can do with. Pure; NumPy only.

Nodes of one kind are free for the same time. A job keeps its place from its start to its end, so that a feasible plan
stays feasible when demands and times are replaced by dual feasible functions of them, one function for the demand and
one for the time, and their products add up to the number of nodes at most. This is the conservative scale of Fekete and
Schepers, "A general framework for bounds for higher-dimensional orthogonal packing problems", Mathematical Methods of
Operations Research 60 (2004), in two dimensions: jobs are intervals of time, so that on each node they can be dealt to
units of a resource of which none serves two at a time. Demands are summed over jobs, not over resources; products of
two resources prove nothing where resources are counted and not laid out as rectangles. Instead sums of resources are
tried as resources of their own. A job of several nodes counts as so many jobs that fill a node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between
from hpcpanda.packing.bounding.classes import TICKS, classes
from hpcpanda.packing.bounding.crowding import most_crowded
from hpcpanda.packing.bounding.measures import Resource, Times, scarce_resources
from hpcpanda.packing.bounding.pairs import strongest_pairs
from hpcpanda.packing.bounding.reduction import reduced_bound
from hpcpanda.packing.bounding.scales import scales
from hpcpanda.packing.tables import DIMENSIONS, Floats, Ints, JobTable, NodeTable

LARGEST_CAPACITY = 10_000_000_000
"""Of a node, in any unit."""
REDUCED = 64
"""Most items for which the reduction is tried, which takes time of the third power of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What no plan can do with less of."""

    nodes: int
    node_seconds: float
    """Time of all nodes together, each from its first job's start to its last job's end."""
    by: str
    """What proves the number of nodes, strongest first: the resource and the function of it, the same of the time."""

    def distance(self, nodes: int) -> float:
        """How far a plan of so many nodes may be from the best one, as a share: 0.01 is 1 % too many at most."""
        return nodes / self.nodes - 1 if self.nodes else float(nodes > 0)


def lower_bound(jobs: JobTable, kind: NodeTable, seconds: float) -> Bound:
    """Bound the nodes that jobs need.

    Priority and affinity are left out; not-before times and deadlines count.

    Args:
        jobs: what is to be placed, all of it.
        kind: one row, the node of which there are as many as needed, free from its ``free_from``.
        seconds: time for which each of them is free.

    Raises:
        InvalidValue: a job fits on no node of the kind, or not within the time; or the kind is not one row.
    """
    _require_fit(jobs, kind, seconds)
    if not len(jobs):
        return Bound(nodes=0, node_seconds=0.0, by="no jobs")
    resources = scarce_resources(jobs, kind)
    best = _bound(resources, jobs.nodes, jobs.seconds, seconds)
    crowded = most_crowded(
        [(r.demand, r.capacity) for r in resources], jobs, float(kind.free_from[0]), seconds
    )
    if crowded is None:
        return best
    forced, first, last = crowded
    kept = forced > 0
    inside = _bound([r.of(kept) for r in resources], jobs.nodes[kept], forced[kept], last - first)
    if inside.nodes <= best.nodes:
        return best
    by = f"{inside.by}; between {first:.0f} s and {last:.0f} s"
    node_seconds = max(best.node_seconds, inside.node_seconds)
    return Bound(nodes=inside.nodes, node_seconds=node_seconds, by=by)


def fewest_bins(sizes: Ints, capacity: int) -> int:
    """Bound the bins of one-dimensional bin packing.

    Raises:
        InvalidValue: an item is larger than a bin, or negative.
    """
    require_between("capacity", capacity, 1, LARGEST_CAPACITY)
    if not len(sizes):
        return 0
    if sizes.min() < 0 or sizes.max() > capacity:
        raise InvalidValue("sizes", f"must lie in 0..{capacity}, the capacity of a bin")
    ones = np.ones(len(sizes), np.int64)
    resource = Resource(name="size", demand=sizes.astype(np.int64), capacity=capacity)
    return _bound([resource], ones, np.ones(len(sizes)), 1.0).nodes


def _require_fit(jobs: JobTable, kind: NodeTable, seconds: float) -> None:
    if len(kind) != 1:
        raise InvalidValue("kind", f"has {len(kind)} rows; give the one row of the node to count")
    if not 0 < seconds < math.inf:
        raise InvalidValue("seconds", f"{seconds} is no length of time; nodes must be free for some")
    for name in DIMENSIONS:
        capacity = int(getattr(kind, name)[0])
        require_between(name, capacity, 0, LARGEST_CAPACITY)
        wrong = (getattr(jobs, name) > capacity) | (getattr(jobs, name) < 0)
        _refuse(wrong, name, f"than the {capacity} of a node, or less than none")
    start = float(kind.free_from[0])
    end = np.minimum(jobs.deadline, start + seconds)
    late = ~(np.maximum(jobs.not_before, start) + jobs.seconds <= end + 1e-12 * np.abs(end)) | ~(
        jobs.seconds >= 0
    )
    _refuse(
        late, "seconds", f"than the {seconds:.0f} s of the nodes, its not-before time and its deadline allow"
    )
    _refuse(jobs.nodes < 1, "nodes", "or less than one node")


def _refuse(wrong: np.ndarray[tuple[int], np.dtype[np.bool_]], field: str, limit: str) -> None:
    if wrong.any():
        raise InvalidValue(field, f"job {int(wrong.argmax())} asks for more {limit}; leave it out")


def _bound(resources: list[Resource], nodes: Ints, runs: Floats, seconds: float) -> Bound:
    """The strongest bound of all resources and functions."""
    run_ticks = np.minimum(np.floor(runs / seconds * TICKS + 1e-6), TICKS).astype(np.int64)
    grouped = classes(run_ticks, TICKS)
    times = Times(
        ticks=run_ticks,
        classes=grouped,
        scales=scales(grouped.sizes, TICKS),
        shares=runs / seconds,
        seconds=seconds,
    )
    bounds = [
        Bound(nodes=int(nodes.max()), node_seconds=float((nodes * runs).max()), by="the widest job"),
        *(_of_resource(r, nodes, times) for r in resources),
        *_of_pairs(resources, nodes, times),
        *_at_once(resources, nodes, run_ticks),
        *(b for r in resources for b in _of_large(r, nodes, times)),
    ]
    best = max(bounds, key=lambda b: b.nodes)
    return Bound(nodes=best.nodes, node_seconds=max(b.node_seconds for b in bounds), by=best.by)


def _of_resource(resource: Resource, nodes: Ints, times: Times) -> Bound:
    """The strongest product of a function of the demand and a function of the time.

    Rounding sizes down to their classes only weakens a bound; the volume, which it would weaken most, is taken exactly.
    """
    rows = classes(resource.demand, resource.capacity)
    sizes = scales(rows.sizes, resource.capacity)
    shape = len(rows.sizes), len(times.classes.sizes)
    share = nodes * (resource.demand / resource.capacity)
    count = np.bincount(
        rows.of * shape[1] + times.classes.of, weights=nodes, minlength=shape[0] * shape[1]
    ).reshape(shape)
    by_size = sizes.values @ count
    by_size[0] = np.bincount(times.classes.of, weights=share, minlength=shape[1])
    values = by_size @ times.scales.values.T
    values[:, 0] = sizes.values @ np.bincount(rows.of, weights=nodes * times.shares, minlength=shape[0])
    values[0, 0] = share @ times.shares
    size, time = np.unravel_index(int(values.argmax()), values.shape)
    return Bound(
        nodes=_whole(float(values[size, time])),
        node_seconds=max(float(values[:, 0].max()) * times.seconds, _held(by_size, times)),
        by=f"{resource.name}, {sizes.names[size]}; time, {times.scales.names[time]}",
    )


def _of_pairs(resources: list[Resource], nodes: Ints, times: Times) -> Iterator[Bound]:
    """The strongest product of a function of two resources and one of the time, and the strongest of node time."""
    for pair in strongest_pairs(resources, nodes, times):
        value = pair.count(nodes, times)
        yield Bound(
            nodes=_whole(value),
            node_seconds=0.0 if pair.time else value * times.seconds,
            by=pair.name(times),
        )


def _of_large(resource: Resource, nodes: Ints, times: Times) -> Iterator[Bound]:
    """Of few jobs that cannot be after, or beside, each other: bins in the other dimension alone."""
    for what, sizes, capacity, large in (
        ("reduction; time, more than half", resource.demand, resource.capacity, 2 * times.ticks > TICKS),
        ("more than half; time, reduction", times.ticks, TICKS, 2 * resource.demand > resource.capacity),
    ):
        if 0 < nodes[large].sum() <= REDUCED:
            items = np.repeat(sizes[large], nodes[large]).tolist()
            bins = reduced_bound(items, capacity)
            yield Bound(nodes=bins, node_seconds=0.0, by=f"{resource.name}, {what}")


def _at_once(resources: list[Resource], nodes: Ints, run_ticks: Ints) -> Iterator[Bound]:
    """Of one job and all long ones that cannot be before or after it: at some time they all run.

    Jobs longer than half the time overlap with each other, and with a job j when both together are longer than the time;
    intervals that overlap two by two have a point in common.
    """
    order = np.argsort(-run_ticks, kind="stable")
    runs = run_ticks[order]
    long = int(np.searchsorted(-runs, -(TICKS // 2), side="left"))
    beside = np.minimum(np.searchsorted(-runs, runs - TICKS, side="left"), long)
    beside[:long] = np.arange(long)
    for resource in resources:
        share = (nodes * (resource.demand / resource.capacity))[order]
        together = np.concatenate([[0.0], np.cumsum(share[:long])])[beside] + share
        yield Bound(nodes=_whole(float(together.max())), node_seconds=0.0, by=f"{resource.name}, all at once")


def _held(by_size: Floats, times: Times) -> float:
    """Node-seconds for which nodes are held by the longest jobs on them.

    At any length t, the jobs longer than t need so many nodes, each of which is held for longer than t; the nodes of all
    lengths, added up over t, are the node-seconds.
    """
    longer = by_size[:, ::-1]
    volume = np.cumsum(longer * times.scales.values[0, ::-1], axis=1).max(axis=0)
    large = np.cumsum(longer * times.scales.values[1, ::-1], axis=1).max(axis=0)
    needed = np.ceil(np.maximum(volume, large) * (1 - 1e-9) - 1e-9)[::-1]
    lengths = np.diff(times.classes.sizes, prepend=0) / TICKS * times.seconds
    return float(np.maximum(needed, 1) @ lengths)


def _whole(value: float) -> int:
    """The next whole number, but for what floating-point sums may be off by."""
    return math.ceil(value * (1 - 1e-9) - 1e-9)
