"""Picture of the host's holes: how long, how wide, and how much time is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hpcpanda.simulate.machines.idle import Holes, IdleProfile, holes
from hpcpanda.simulate.pictures.style import plain, title
from hpcpanda.simulate.results import SimulationResult
from hpcpanda.simulate.trace import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TIMES: Final = {
    "1 s": 1, "10 s": 10, "1 min": 60, "5 min": 300, "30 min": 1800, "2 h": 7200, "8 h": 28_800, "1 d": 86_400,
    "4 d": 345_600, "16 d": 1_382_400, "64 d": 5_529_600,
}  # fmt: skip
_BINS_A_DECADE: Final = 6
_HOUR: Final = 3600.0


def draw_holes(result: SimulationResult) -> Figure:
    """Node-hours of the holes that the host alone leaves, by their length and width, both logarithmic."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    first = result.policies[0]
    found, shortest = _holes(result), first.shortest_hole_s
    area = found.length * found.width / _HOUR
    lengths = _edges(found.length)
    widths = (
        np.unique(np.ceil(_edges(found.width.astype(np.float64)))) - 0.5
    )  # between whole numbers of nodes
    counts, _, _ = np.histogram2d(found.length, found.width, bins=(lengths, widths), weights=area)
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    shown = np.ma.masked_equal(counts.T, 0.0)
    if found.length.size:
        top = float(shown.max())
        mesh = axes.pcolormesh(
            lengths, widths, shown, cmap="cividis_r", norm=LogNorm(vmin=top / 1e4, vmax=top), rasterized=True
        )
        figure.colorbar(mesh, ax=axes, label="node-hours in a cell")
    axes.set(xscale="log", yscale="log", xlabel="length of the hole", ylabel="width, nodes")
    ticks = {name: s for name, s in _TIMES.items() if lengths[0] <= s <= lengths[-1]}
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.axvline(shortest, color="black", linewidth=1, linestyle="--")
    axes.annotate(
        "harvestable",
        (shortest, 1),
        (4, -4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
    )
    short = area[found.length < shortest].sum()
    title(
        axes,
        f"{len(area):,} holes, {area.sum():,.0f} node-hours; {short / max(area.sum(), 1e-9):.2%} of them in holes"
        f" shorter than {shortest:.0f} s",
    )
    plain(axes)
    return figure


def _holes(result: SimulationResult) -> Holes:
    first = result.policies[0]
    series = result.series[first.policy]
    idle = np.maximum(first.host.nodes - series.host, 0).astype(np.int64)
    profile = IdleProfile(times=series.times, idle=idle)
    return holes(profile, (float(series.times[0]), float(series.times[-1])), shortest_s=0.0)


def _edges(values: Floats) -> Floats:
    """Logarithmic edges around all values, from 1 on."""
    last = np.log10(max(float(values.max(initial=1.0)), 10.0)) + 1 / _BINS_A_DECADE
    first = np.floor(np.log10(max(float(values.min(initial=10.0)), 1.0)))
    edges: Floats = 10.0 ** np.arange(first, last + 1 / _BINS_A_DECADE, 1 / _BINS_A_DECADE)
    return edges
