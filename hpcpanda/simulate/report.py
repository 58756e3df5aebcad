"""What a simulation found, as rows for people and as a document for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, Final

from hpcpanda.simulate.results import HarvestFigures, SimulationResult


def _seconds(value: float) -> str:
    """Short enough for a column."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:.0f} s"


def _share(part: float, figures: HarvestFigures) -> str:
    return f"{part / figures.harvestable:.2%}" if figures.harvestable else "-"


_FIGURES: Final[dict[str, Callable[[HarvestFigures], str]]] = {
    "held, of the harvestable": lambda p: f"{p.harvested_share:.2%}",
    "useful, of the harvestable": lambda p: f"{p.useful_share:.2%}",
    "lost": lambda p: _share(p.lost, p),
    "overhead: start-up": lambda p: _share(p.startup, p),
    "overhead: drain": lambda p: _share(p.drain, p),
    "overhead: cores without work": lambda p: _share(p.unfilled, p),
    "held, node-hours": lambda p: f"{p.held:,.0f}",
    "useful, node-hours": lambda p: f"{p.useful:,.0f}",
    "taken from the host, node-hours": lambda p: f"{p.displaced:,.0f}",
    "allocations asked for": lambda p: f"{p.requests:,}",
    "allocations started": lambda p: f"{p.started:,}",
    "preempted": lambda p: f"{p.preempted:,}",
    "killed at the wall": lambda p: f"{p.killed_at_wall:,}",
    "lost a node": lambda p: f"{p.failed:,}",
    "events finished": lambda p: f"{p.events_finished:,}",
    "jobs finished": lambda p: f"{p.jobs_finished:,}",
    "wait in the queue, median": lambda p: _seconds(p.queue_wait_median_s),
    "wait in the queue, p90": lambda p: _seconds(p.queue_wait_p90_s),
    "turn-around, median": lambda p: _seconds(p.turnaround_median_s) if p.turnaround_median_s else "-",
    "host: busy, or useful": lambda p: f"{p.host.utilisation_after:.2%}",
    "host: jobs delayed": lambda p: f"{p.host.delayed_jobs:,}",
    "host: delay, mean": lambda p: _seconds(p.host.delay_mean_s),
    "host: delay, most": lambda p: _seconds(p.host.delay_max_s),
}


def figures_of(policy: HarvestFigures) -> dict[str, str]:
    """What is told of a policy, by name; the same names, in the same order, for all of them."""
    return {name: text(policy) for name, text in _FIGURES.items()}


def headline(result: SimulationResult) -> str:
    """The host in a sentence.

    Args:
        result: of at least one policy.
    """
    first = result.policies[0]
    host = first.host
    return (
        f"{result.source}: {host.jobs:,} jobs on {host.nodes:,} nodes in {host.days:.1f} days, {host.utilisation_before:.1%}"
        f" busy; {first.harvestable:,.0f} node-hours in holes of {first.shortest_hole_s:.0f} s or more"
    )


def document(result: SimulationResult) -> dict[str, Any]:
    """All figures under the names of their fields, with the shares; without the series."""
    told = {
        f.name: getattr(result, f.name)
        for f in fields(result)
        if f.name not in ("series", "policies", "flaws")
    }
    return {
        **told,
        "flaws": [asdict(flaw) for flaw in result.flaws],
        "policies": [
            {**asdict(p), "harvested_share": p.harvested_share, "useful_share": p.useful_share}
            for p in result.policies
        ],
    }
