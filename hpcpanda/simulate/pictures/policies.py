"""Picture that compares policies: where the harvestable node-hours went, and the figures beside."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Final

from hpcpanda.simulate.pictures.style import LOST, OVERHEAD, USEFUL, plain, title
from hpcpanda.simulate.report import figures_of
from hpcpanda.simulate.results import HarvestFigures, SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_TOLD: Final = (
    "held, of the harvestable",
    "useful, of the harvestable",
    "useful, node-hours",
    "lost",
    "taken from the host, node-hours",
    "allocations started",
    "preempted",
    "killed at the wall",
    "turn-around, median",
    "host: jobs delayed",
    "host: delay, most",
)
"""Figures in the table: fewer than there are, to be read from a slide."""


def draw_policies(result: SimulationResult) -> Figure:
    """A bar a policy, in percent of the harvestable: useful, overhead, lost; below, a table of figures."""
    from matplotlib.figure import Figure

    policies = result.policies
    heights = [0.9 + 0.4 * len(policies), 0.7 + 0.25 * len(_TOLD)]
    figure = Figure(figsize=(10, sum(heights) + 0.4), layout="constrained")
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": heights})
    _draw_bars(above, policies)
    _draw_table(below, policies)
    return figure


def _draw_bars(axes: Axes, policies: tuple[HarvestFigures, ...]) -> None:
    left = [0.0] * len(policies)
    names = [p.policy for p in policies]
    for label, colour, values in (
        ("useful", USEFUL, [p.useful for p in policies]),
        ("overhead", OVERHEAD, [p.overhead for p in policies]),
        ("lost", LOST, [p.lost for p in policies]),
    ):
        shares = [
            100 * v / p.harvestable if p.harvestable else 0.0 for v, p in zip(values, policies, strict=True)
        ]
        axes.barh(names, shares, left=left, color=colour, label=label, height=0.7)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set(xlim=(0, max(100.0, *left)), xlabel="% of the harvestable node-hours")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=9, frameon=False)
    first = policies[0]
    title(axes, f"{first.harvestable:,.0f} node-hours in holes of {first.shortest_hole_s:.0f} s or more")
    plain(axes)


def _draw_table(axes: Axes, policies: tuple[HarvestFigures, ...]) -> None:
    told = [figures_of(p) for p in policies]
    axes.set(xlim=(0, 1), ylim=(len(_TOLD) + 0.6, -2.1))
    axes.axis("off")
    right = [0.28 + 0.72 * (i + 1) / len(policies) for i in range(len(policies))]
    for policy, x in zip(policies, right, strict=True):
        axes.text(x, -0.5, fill(policy.policy, 13), ha="right", va="bottom", fontsize=9, weight="bold")
    for y, name in enumerate(_TOLD):
        axes.axhline(y - 0.5, color="0.85", linewidth=0.8)
        axes.text(0, y, name, va="center", fontsize=9)
        for figures, x in zip(told, right, strict=True):
            axes.text(x, y, figures[name], ha="right", va="center", fontsize=9)
