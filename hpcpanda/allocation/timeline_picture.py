"""Draw the occupancy timelines of allocations from their trace files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcpanda.allocation.timeline import Doing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = {Doing.EVENTS: "tab:green", Doing.JOB: "tab:blue", Doing.MPI_JOB: "tab:purple"}
_WORDS: Final = {Doing.EVENTS: "events", Doing.JOB: "jobs", Doing.MPI_JOB: "MPI jobs"}
_MERGE, _TOLD, _LOST, _KILLED = "tab:orange", "tab:red", "black", "tab:red"
_ROW_INCHES: Final = (0.35, 0.13)
"""Height of a row, and where there are many."""
_MANY_ROWS: Final = 24


@dataclass(frozen=True, slots=True)
class _Trace:
    """An allocation; times are seconds since the first allocation of the picture began."""

    document: dict[str, Any]
    shift: float

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.document["traceEvents"]
        return found

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["otherData"]
        return found

    @property
    def end(self) -> float:
        return self.shift + float(self.facts["seconds"])

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Node and core of each row."""
        return sorted({(e["pid"], e["tid"]) for e in self.events if e.get("name") == "thread_name"})

    def name(self, node: int) -> str:
        return next(
            (str(e["args"]["name"]) for e in self.events if e["name"] == "process_name" and e["pid"] == node),
            f"node {node}",
        )

    def notes(self, what: str) -> Iterator[tuple[float, dict[str, Any]]]:
        """Time and facts of lines of the history."""
        for event in self.events:
            if event["ph"] == "i" and event["name"] == what:
                yield self.shift + event["ts"] / 1e6, event["args"]

    def spans(self, row: tuple[int, int], doing: Doing) -> list[tuple[float, float]]:
        return [
            (self.shift + e["ts"] / 1e6, e["dur"] / 1e6)
            for e in self.events
            if e["ph"] == "X" and e["cat"] == doing and (e["pid"], e["tid"]) == row
        ]

    def merges(self) -> Iterator[tuple[float, float]]:
        """Begin and length of each merge pack."""
        ends = {facts["pack"]: at for at, facts in self.notes("pack-ended")}
        for begin, facts in self.notes("pack-started"):
            if facts["kind"] == "merge":
                yield begin, ends.get(facts["pack"], self.end) - begin


def draw_timelines(traces: Sequence[Path], picture: Path) -> None:
    """One panel an allocation under a common time, one bar a core and one an MPI job; PNG or whatever the suffix says.

    Green is a core that ran events, blue one that a job had; purple is an MPI job, and orange a time in which a merge ran.
    A dashed line is where the allocation was told to end, a dotted one where it lost nodes.

    Args:
        traces: files written by :func:`hpcpanda.allocation.timeline.write_trace`.
        picture: the file to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    documents = [json.loads(path.read_text()) for path in traces]
    first = min((d["otherData"]["began"] for d in documents), default=0.0)
    found = [_Trace(d, d["otherData"]["began"] - first) for d in documents]
    heights = [max(1, len(t.rows)) for t in found]
    row = _ROW_INCHES[sum(heights) > _MANY_ROWS]
    figure = Figure(figsize=(11, 1.0 * len(found) + row * sum(heights) + 0.4), layout="constrained")
    panels = figure.subplots(
        len(found), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": [n + 1 for n in heights]}
    )
    for trace, axes in zip(found, panels[:, 0], strict=True):
        _draw(trace, axes)
    panels[-1, 0].set_xlim(0, max(t.end for t in found))
    panels[-1, 0].set_xlabel("seconds since the first allocation began")
    seen = {e["cat"] for t in found for e in t.events if e["ph"] == "X"}
    legend: list[Patch | Line2D] = [
        Patch(color=_COLOURS[doing], label=_WORDS[doing]) for doing in Doing if doing in seen
    ]
    for label, colour, style, there in (
        ("merge", _MERGE, "-", any(list(t.merges()) for t in found)),
        ("told to end", _TOLD, "--", any(list(t.notes("told-to-end")) for t in found)),
        ("node lost", _LOST, ":", any(list(t.notes("nodes-lost")) for t in found)),
    ):
        if there:
            legend.append(Line2D([], [], color=colour, linestyle=style, linewidth=2, label=label))
    figure.legend(handles=legend, loc="outside upper right", ncols=len(legend), fontsize=9)
    figure.savefig(picture, dpi=110)


def _draw(trace: _Trace, axes: Axes) -> None:
    rows = {row: at for at, row in enumerate(trace.rows)}
    for row, at in rows.items():
        for doing, colour in _COLOURS.items():
            axes.broken_barh(trace.spans(row, doing), (at - 0.4, 0.8), facecolors=colour, linewidth=0)
    for begin, seconds in trace.merges():
        axes.axvspan(begin, begin + seconds, ymax=0.06, color=_MERGE, linewidth=0)
    for what, colour, style in (("told-to-end", _TOLD, "--"), ("nodes-lost", _LOST, ":")):
        for when, _ in trace.notes(what):
            axes.axvline(when, color=colour, linestyle=style, linewidth=2)
    whole = any(True for _ in trace.notes("allocation-ended"))
    axes.axvspan(trace.shift, trace.end, color="0.93", zorder=0, linewidth=0)
    if not whole:
        axes.axvline(trace.end, color=_KILLED, linewidth=4)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    ticks = _ticks(trace, rows)
    axes.set_yticks(list(ticks.values()), list(ticks), fontsize=8)
    axes.set_title(
        f"{trace.facts['allocation']}: cores at work {trace.facts['occupancy']:.1%} of {trace.facts['seconds']:.0f} s,"
        f" {trace.facts['finished']:.1%} for what was finished" + ("" if whole else ", then killed"),
        fontsize=10,
        loc="left",
    )


def _ticks(trace: _Trace, rows: dict[tuple[int, int], int]) -> dict[str, float]:
    """A label a core; a label a node where there are many."""
    if len(rows) <= _MANY_ROWS // 2:
        return {f"{trace.name(node)} core {core}": float(at) for (node, core), at in rows.items()}
    places: dict[int, list[int]] = {}
    for (node, _), at in rows.items():
        places.setdefault(node, []).append(at)
    return {trace.name(node).partition(",")[0]: sum(at) / len(at) for node, at in places.items()}
