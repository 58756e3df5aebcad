"""Which of the sites that may have a task should have it.

Every site is judged by one figure in seconds: how long until a helping of the task, left to it, would be done. Late
binding stays: an edge's request decides the moment. A site that is clearly worse than another leaves the work to that
one, as long as the other has asked lately with room to spare; after a while it may have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpcpanda.brokerage.matching import Demand, SiteTraits, refusals
from hpcpanda.brokerage.network import NOWHERE, Data, Link, moving_seconds
from hpcpanda.domain.why import Why

PATIENCE_S = 120.0
"""Work that has waited longer is left to nobody: whoever asks may have it."""
ASKED_S = 45.0
"""A site that has not asked for longer is not waited for: requests are held for 30 s, then repeated."""
CLEARLY = 1.5
"""A site is better only when it would be done so many times sooner,"""
SOONER_S = 60.0
"""and so many seconds."""
HELPING_S = 600.0
"""So long a helping keeps the cores busy that are asked for."""
MAX_FAILURE_RATE = 0.95
"""More failures are not reckoned with: the figure stays finite."""
STALLED_S = 1800.0
"""A site that has finished nothing for so long after it was given something, and has no core busy with it, is stalled:
what it holds is offered to others that ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """How a site does."""

    traits: SiteTraits
    asked: float = 0.0
    """When it last asked for work; Unix seconds."""
    hungry: bool = False
    """It then got less than it had cores for."""
    granted: float = 0.0
    """When it was first given something after it last finished something; Unix seconds."""
    committed: float = 0.0
    """When it last finished something; Unix seconds."""
    queue_wait_s: float = 0.0
    """How long its allocations wait; 0 when not known."""
    failure_rate: float = 0.0
    """Part of recent events and jobs that failed, 0..1."""
    quarantined_until: float = 0.0
    """It is given nothing before; Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How long a helping would take at a site, in seconds."""

    wait_s: float
    """In the batch queue."""
    move_s: float
    """Bringing the inputs."""
    silence_s: float
    """What it was given has been without a result for so long, beyond what is usual."""
    run_s: float
    """The helping itself."""
    retry_s: float
    """Doing again what fails."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.wait_s + self.move_s + self.silence_s + self.run_s + self.retry_s

    def numbers(self) -> dict[str, float]:
        """Its parts by name; an infinite one, which no document can hold, is left out."""
        parts = {name: getattr(self, name) for name in self.__slots__} | {"total_s": self.total_s}
        return {name: value for name, value in parts.items() if math.isfinite(value)}


def outlook(site: SiteState, data: Data, links: Mapping[tuple[str, str], Link], *, now: float) -> Outlook:
    """How long a helping of a task with these inputs would take at the site, by Unix seconds ``now``."""
    wait_s = site.queue_wait_s
    silent = now - site.granted - wait_s - HELPING_S if site.granted > site.committed else 0.0
    failing = min(MAX_FAILURE_RATE, max(0.0, site.failure_rate))
    return Outlook(
        wait_s=wait_s,
        move_s=moving_seconds(data, site.traits.name, links),
        silence_s=max(0.0, silent),
        run_s=HELPING_S,
        retry_s=(wait_s + HELPING_S) * failing / (1.0 - failing),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a site may have some of a task now."""

    may: bool
    why: Why


def judge(
    demand: Demand,
    site: SiteState,
    others: Iterable[SiteState],
    *,
    waited_s: float,
    now: float,
    data: Data = NOWHERE,
    links: Mapping[tuple[str, str], Link],
) -> Verdict:
    """Whether the site that asks may have some of a task that has waited so long.

    Args:
        demand: what the task demands.
        site: the one that asks.
        others: those that are alive besides.
        waited_s: since something of the task was last leased, or it was submitted.
        now: Unix seconds.
        data: where the inputs are.
        links: throughput by source and destination.
    """
    for refusal in refusals(demand, site.traits):
        return Verdict(may=False, why=refusal)
    own = outlook(site, data, links, now=now)
    if waited_s < PATIENCE_S:
        for other in others:
            if not other.hungry or now - other.asked > ASKED_S or other.traits.name == site.traits.name:
                continue
            if next(refusals(demand, other.traits), None) is not None:
                continue
            theirs = outlook(other, data, links, now=now)
            if own.total_s > CLEARLY * theirs.total_s and own.total_s > theirs.total_s + SOONER_S:
                return Verdict(may=False, why=_better(site, own, other, theirs, waited_s))
    return Verdict(may=True, why=_placed(site, own))


def _better(site: SiteState, own: Outlook, other: SiteState, theirs: Outlook, waited_s: float) -> Why:
    left = max(0.0, PATIENCE_S - waited_s)
    return Why(
        code="better-site",
        sentence=f"It is left to {other.traits.name}, which would be done in {_seconds(theirs.total_s)}, "
        f"{site.traits.name} in {_seconds(own.total_s)}; in {left:.0f} s anyone may have it.",
        numbers=own.numbers() | {f"better_{name}": value for name, value in theirs.numbers().items()},
    )


def _placed(site: SiteState, own: Outlook) -> Why:
    return Why(
        code="may-run",
        sentence=f"{site.traits.name} may have some: it would be done with a helping in {_seconds(own.total_s)}.",
        numbers=own.numbers(),
    )


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if math.isfinite(value) else "an unknown time"
