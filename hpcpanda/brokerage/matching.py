"""Hard matches: whether a site may have any of a task at all, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.room import Room
from hpcpanda.domain.why import Why


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTraits:
    """What a site is and has."""

    name: str
    architecture: str | None = None
    tags: frozenset[str] = frozenset()
    room: Room | None = None
    """Largest job that it has been found to have room for; None while it has asked for no jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a task demands of a site."""

    requirements: Requirements = field(default_factory=Requirements)
    job: JobRequest | None = None
    """What each job asks for; None for a task of events."""
    container: bool = False


def refusals(demand: Demand, site: SiteTraits) -> Iterator[Why]:
    """Every reason for which the site may have none of the task; none when it may."""
    wanted = demand.requirements
    if wanted.sites and site.name not in wanted.sites:
        yield _no("site-not-allowed", f"the task may run only on {_listed(wanted.sites)}")
    if site.name in wanted.not_sites:
        yield _no("site-denied", f"the task may not run on {site.name}")
    if wanted.architectures and site.architecture not in wanted.architectures:
        there = site.architecture or "not said in its site file"
        yield _no(
            "architecture",
            f"the task runs on {_listed(wanted.architectures)}, and the architecture is {there}",
        )
    missing = sorted(set(wanted.all_tags) - site.tags)
    if missing:
        yield _no("tags", f"the site has no tag {_listed(missing)}", missing=float(len(missing)))
    if demand.job is not None and site.room is not None:
        refusal = site.room.refusal(demand.job, container=demand.container)
        if refusal is not None:
            yield _no("room", f"a job {refusal}")
    elif demand.container and site.room is not None and not site.room.containers:
        yield _no("containers", "its commands run in a container, and the site runs none")


def _no(code: str, sentence: str, **numbers: float) -> Why:
    return Why(code=code, sentence=sentence[0].upper() + sentence[1:] + ".", numbers=numbers)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    few = ", ".join(names[:5])
    return few if len(names) <= 5 else f"{few} or {len(names) - 5} more"
