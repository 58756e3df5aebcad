"""Draw the occupancy timelines of allocations from their trace files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MERGE, _EVENTS, _KILLED = "tab:orange", "tab:green", "tab:red"


def draw_timelines(traces: Sequence[Path], picture: Path) -> None:
    """One panel an allocation, one bar a core: green where the core ran events, orange while a merge ran; PNG or whatever the suffix says.

    Args:
        traces: files written by :func:`hpcpanda.allocation.timeline.write_trace`.
        picture: the file to write.
    """
    from matplotlib.figure import Figure

    documents = [json.loads(path.read_text()) for path in traces]
    cores = [len(_cores(d)) for d in documents]
    figure = Figure(figsize=(11, 1.2 * len(documents) + 0.35 * sum(cores)), layout="constrained")
    panels = figure.subplots(
        len(documents), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 1 for n in cores]}
    )
    for document, axes in zip(documents, panels[:, 0], strict=True):
        _draw(document, axes)
    figure.savefig(picture, dpi=130)


def _cores(document: dict[str, Any]) -> list[tuple[int, int]]:
    return sorted({(e["pid"], e["tid"]) for e in document["traceEvents"] if e.get("name") == "thread_name"})


def _merges(document: dict[str, Any]) -> list[tuple[float, float]]:
    """Begin and length of each merge pack, seconds."""
    began: dict[str, float] = {}
    found: list[tuple[float, float]] = []
    for event in document["traceEvents"]:
        at = event.get("ts", 0.0) / 1e6
        if event["name"] == "pack-started" and event["args"]["kind"] == "merge":
            began[event["args"]["pack"]] = at
        elif event["name"] == "pack-ended" and event["args"]["pack"] in began:
            begin = began.pop(event["args"]["pack"])
            found.append((begin, at - begin))
    return found


def _draw(document: dict[str, Any], axes: Axes) -> None:
    facts = document["otherData"]
    rows = {core: row for row, core in enumerate(_cores(document))}
    for core, row in rows.items():
        spans = [
            (e["ts"] / 1e6, e["dur"] / 1e6)
            for e in document["traceEvents"]
            if e["ph"] == "X" and (e["pid"], e["tid"]) == core
        ]
        axes.broken_barh(spans, (row - 0.4, 0.8), facecolors=_EVENTS, linewidth=0)
    for begin, seconds in _merges(document):
        axes.axvspan(begin, begin + seconds, color=_MERGE, linewidth=0)
    whole = any(e["name"] == "allocation-ended" for e in document["traceEvents"])
    if not whole:
        axes.axvline(facts["seconds"], color=_KILLED, linewidth=4)
    axes.set_xlim(0, facts["seconds"])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(list(rows.values()), [f"node {n} core {c}" for n, c in rows])
    axes.set_xlabel("seconds since the allocation began")
    axes.set_title(
        f"{facts['allocation']}: cores at work {facts['occupancy']:.1%} of {facts['seconds']:.0f} s"
        + ("" if whole else ", then killed"),
        fontsize=10,
        loc="left",
    )
