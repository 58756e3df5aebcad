"""From free nodes and the claims of others to windows: the part that Slurm and PBS have in common. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf

from hpcpanda.packing.windows import MAX_SECONDS, BackfillWindow, merge


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Nodes that somebody else gets: a pending job with an expected start, a reservation."""

    start_s: float
    """From now; at most 0 when they are taken already."""
    nodes: frozenset[str] | None = None
    """By name; None when only their number is known."""
    count: int | None = None
    """Number of nodes when there are no names; None for all there are."""
    queues: frozenset[str] = frozenset()
    """Where nodes without names come from; empty for anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Nodes that come free when a job ends."""

    end_s: float
    nodes: int


def windows_of(
    free: Mapping[str, Iterable[str]],
    claims: Iterable[Claim],
    longest: Mapping[str, float | None] | None = None,
) -> tuple[BackfillWindow, ...]:
    """Windows of nodes that are free until the first claim on them.

    Claims that do not name their nodes are taken to get those that would otherwise be free the longest.

    Args:
        free: names of the free nodes by queue; a node may be in several.
        claims: what others get.
        longest: the queues' own longest walltime: a window for longer could not be asked for.
    """
    queues = {queue: sorted(set(names)) for queue, names in free.items()}
    ends = dict.fromkeys((name for names in queues.values() for name in names), inf)
    for claim in sorted(claims, key=lambda c: (c.nodes is None, c.start_s)):
        for name in _nodes_of(claim, queues, ends):
            ends[name] = min(ends[name], claim.start_s)
    found: Counter[tuple[str, float]] = Counter()
    for queue, names in queues.items():
        limit = (longest or {}).get(queue)
        for name in names:
            found[queue, min(ends[name], inf if limit is None else limit)] += 1
    return merge(
        BackfillWindow(
            queue=queue or None, nodes=count, seconds=None if isinf(end) else min(end, MAX_SECONDS)
        )
        for (queue, end), count in found.items()
        if end > 0
    )


def _nodes_of(claim: Claim, queues: Mapping[str, Sequence[str]], ends: Mapping[str, float]) -> Iterable[str]:
    if claim.nodes is not None:
        return [name for name in claim.nodes if name in ends]
    names = {n for q, names in queues.items() if not claim.queues or q in claim.queues for n in names}
    eligible = sorted((n for n in names if ends[n] > claim.start_s), key=lambda n: (-ends[n], n))
    return eligible if claim.count is None else eligible[: max(0, claim.count)]


def expected_claim(
    needed: int, free: int, releases: Iterable[Release], queues: frozenset[str]
) -> Claim | None:
    """The claim of the first job in the queue when the batch system tells no start: as soon as enough jobs have ended.

    None when it would not even start then, or waits for something else than nodes, since there are enough.
    """
    have, released = free, 0
    if have >= needed:
        return None
    for release in sorted(releases, key=lambda r: r.end_s):
        have += release.nodes
        released += release.nodes
        if have >= needed:
            return Claim(start_s=max(0.0, release.end_s), count=max(0, needed - released), queues=queues)
    return None
