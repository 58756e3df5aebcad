"""Pictures over time: utilisation before and after, and the allocations of a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hpcpanda.simulate.pictures.style import ENDINGS, HELD, HOST, plain, title
from hpcpanda.simulate.results import HarvestFigures, HarvestSeries, SimulationResult
from hpcpanda.simulate.trace import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

_BINS: Final = 500
_DAY: Final = 86_400.0
_HOUR: Final = 3600.0

Span = tuple[float, float, int, str]


def draw_utilisation(result: SimulationResult) -> Figure:
    """Busy nodes over time: the host alone, then one panel a policy with what we held of what it left idle."""
    from matplotlib.figure import Figure

    drawn = [(p, result.series[p.policy]) for p in result.policies if p.policy in result.series]
    rows = len(drawn) + 1
    figure = Figure(figsize=(10, 0.7 + 1.55 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    first, series = drawn[0]
    _draw_busy(panels[0], series, first.host.nodes, ours=False)
    title(panels[0], f"host alone: {first.host.utilisation_before:.1%} busy")
    for axes, (policy, series) in zip(panels[1:], drawn, strict=True):
        _draw_busy(axes, series, policy.host.nodes, ours=True)
        title(axes, _after(policy))
    figure.legend(handles=_patches(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.supylabel(f"nodes of {first.host.nodes:,}, %", fontsize=10)
    panels[-1].set_xlabel("days since the simulation began")
    return figure


def _patches() -> list[Patch]:
    from matplotlib.patches import Patch

    return [
        Patch(color=HOST, label="host's jobs"),
        Patch(color=HELD, label="our allocations"),
        Patch(facecolor="white", edgecolor="0.7", label="idle"),
    ]


def _after(policy: HarvestFigures) -> str:
    host = policy.host
    delayed = f"; {host.delayed_jobs:,} host jobs delayed" if host.delayed_jobs else ""
    return (
        f"{policy.policy}: held {policy.harvested_share:.1%} of the harvestable, {host.utilisation_after:.1%} busy or"
        f" useful{delayed}"
    )


def _draw_busy(axes: Axes, series: HarvestSeries, nodes: int, *, ours: bool) -> None:
    """Means over bins, since a pixel is hours wide in a picture of months."""
    begin, end = float(series.times[0]), float(series.times[-1])
    edges = np.linspace(begin, end, _BINS + 1)
    host = np.clip(_means(series.times, series.host, edges) / nodes * 100, 0, 100)
    days = (edges - begin) / _DAY
    axes.stairs(host, days, fill=True, color=HOST)
    if ours:
        held = np.minimum(_means(series.times, series.ours, edges) / nodes * 100, 100 - host)
        axes.stairs(host + held, days, baseline=host, fill=True, color=HELD)
    axes.set(xlim=(0, days[-1]), ylim=(0, 100), yticks=(0, 50, 100))
    plain(axes)


def _means(times: Floats, values: Floats, edges: Floats) -> Floats:
    """Means of a step function between neighbouring edges."""
    area = np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(times))])
    means: Floats = np.diff(np.interp(edges, times, area)) / np.diff(edges)
    return means


# ---- the allocations of a day ----


def draw_day(result: SimulationResult) -> Figure:
    """The day on which the first policy held most: the host's busy nodes, and each allocation as a rectangle of nodes and time."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    policy = result.policies[0]
    series = result.series[policy.policy]
    begin = _best_day(series)
    end = min(begin + _DAY, float(series.times[-1]))
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 2]})
    hours = (series.times - begin) / _HOUR
    above.fill_between(hours, series.host, step="post", color=HOST, linewidth=0)
    together = np.minimum(series.host + series.ours, policy.host.nodes)
    above.fill_between(hours, series.host, together, step="post", color=HELD, linewidth=0)
    above.set(xlim=(0, (end - begin) / _HOUR), ylim=(0, policy.host.nodes), ylabel="busy nodes")
    day = (begin - float(series.times[0])) / _DAY
    title(
        above,
        f"{policy.policy}, from day {day:.1f} on: the host's jobs (grey), and our allocations on what they leave",
    )
    spans = [s for s in series.gantt if s[0] < end and s[1] > begin]
    top = _draw_spans(below, spans, begin, end)
    below.set(ylim=(0, max(top, 1)), ylabel="nodes of our allocations", xlabel="hours")
    title(below, f"{len(spans):,} allocations, each a box of its nodes and its time")
    seen = {how for *_, how in spans}
    handles = [Patch(color=colour, label=words) for how, (colour, words) in ENDINGS.items() if how in seen]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    for axes in (above, below):
        plain(axes)
    return figure


def _best_day(series: HarvestSeries) -> float:
    """Begin of the 24 hours, from a full hour on, in which most node-hours were held."""
    begin, end = float(series.times[0]), float(series.times[-1])
    edges: Floats = begin + _HOUR * np.arange(max(24, int((end - begin) // _HOUR)) + 1, dtype=np.float64)
    held = np.cumsum(_means(series.times, series.ours, edges))
    return float(edges[int(np.argmax(held[23:] - np.append(0.0, held[:-24])))])


def _draw_spans(axes: Axes, spans: list[Span], begin: float, end: float) -> int:
    """Each on rows of its own while it lasts, in several pieces where no gap is wide enough; gives the rows used."""
    from matplotlib.collections import PolyCollection

    boxes: dict[str, list[list[tuple[float, float]]]] = {how: [] for how in ENDINGS}
    top = 0
    for (start, stop, _, how), pieces in zip(spans := sorted(spans), place_spans(spans), strict=True):
        left, right = ((min(max(t, begin), end) - begin) / _HOUR for t in (start, stop))
        for low, high in pieces:
            boxes.setdefault(how, []).append([(left, low), (left, high), (right, high), (right, low)])
            top = max(top, high)
    for how, corners in boxes.items():
        colour = ENDINGS.get(how, (HELD, how))[0]
        axes.add_collection(PolyCollection(corners, facecolor=colour, edgecolor="white", linewidth=0.25))
    return top


def place_spans(spans: list[Span]) -> list[list[tuple[int, int]]]:
    """Rows ``[low, high)`` for each of some spans in order of their begin: the lowest that are free, whole if they can be."""
    free: list[tuple[int, int]] = [(0, 2**40)]
    running: list[tuple[float, list[tuple[int, int]]]] = []
    placed: list[list[tuple[int, int]]] = []
    for start, stop, nodes, _ in spans:
        for gone in [r for r in running if r[0] <= start]:
            running.remove(gone)
            free = _joined(free + gone[1])
        pieces = _take(free, nodes)
        free = _without(free, pieces)
        running.append((stop, pieces))
        placed.append(pieces)
    return placed


def _take(free: list[tuple[int, int]], nodes: int) -> list[tuple[int, int]]:
    """The lowest rows; of one gap where one below the top is wide enough."""
    for low, high in free[:-1]:
        if high - low >= nodes:
            return [(low, low + nodes)]
    pieces: list[tuple[int, int]] = []
    for low, high in free:
        take = min(nodes, high - low)
        pieces.append((low, low + take))
        nodes -= take
        if not nodes:
            break
    return pieces


def _without(free: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pieces always begin where a gap begins."""
    ends = dict(taken)
    return [(ends.get(low, low), high) for low, high in free if ends.get(low, low) < high]


def _joined(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(gaps):
        if joined and joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined
