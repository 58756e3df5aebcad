"""What every core of an allocation did, when: collected from its journals and history, kept as a trace file.

The trace is in the Trace Event Format ("JSON Object Format") that Perfetto and chrome://tracing open:
a process a node, a thread a core, times in microseconds since the allocation began.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcpanda.allocation.spool import Spool, journal_pattern
from hpcpanda.domain.errors import CorruptData
from hpcpanda.events.journal import Entries, read_journal

MAX_SPANS = 2000
"""Spans kept of a core; closer neighbours are joined beyond that."""

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the allocation's history."""

    at: float
    what: str
    facts: dict[str, str | float]


@dataclass(slots=True)
class CoreSpans:
    """When one core was at work: begin and end of each span, Unix seconds, and events finished in it."""

    node: str
    rank: int
    slot: int
    begin: Times
    end: Times
    events: npt.NDArray[np.int64]


@dataclass(slots=True)
class Timeline:
    """The life of an allocation."""

    allocation_id: str
    begin: float
    end: float
    cores: list[CoreSpans] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def occupancy(self) -> float:
        """Busy share of all cores over the whole allocation, 0..1; start-up and end included."""
        busy = sum(float((c.end - c.begin).sum()) for c in self.cores)
        total = (self.end - self.begin) * len(self.cores)
        return busy / total if total > 0 else 0.0


def collect(spool: Spool, allocation_id: str) -> Timeline:
    """Read the journals and the history of an allocation.

    Raises:
        FileNotFoundError: the allocation has no history: it never began.
    """
    notes = list(_notes(spool.allocation(allocation_id).history))
    spans: dict[tuple[str, int, int], list[Entries]] = {}
    cores: dict[tuple[str, int], int] = {}
    kept = spool.allocation(allocation_id).journals.glob("*.journal")
    live = (spool.path / "tasks").glob(f"*/events/{journal_pattern(allocation_id)}")
    for path in sorted((*kept, *live)):
        try:
            journal = read_journal(path)
        except CorruptData:
            continue
        if journal.header is None:
            continue
        node = (journal.header.host, journal.header.rank)
        cores[node] = max(cores.get(node, 0), journal.header.cores)
        for slot in np.unique(journal.entries["slot"]).tolist():
            key = (*node, slot)
            spans.setdefault(key, []).append(journal.entries[journal.entries["slot"] == slot])
    begin = notes[0].at
    timeline = Timeline(allocation_id, begin, max(n.at for n in notes), notes=notes)
    for (host, rank), count in sorted(cores.items(), key=lambda item: item[0][1]):
        for slot in range(count):
            timeline.cores.append(_core(host, rank, slot, spans.get((host, rank, slot), [])))
    ends = [float(c.end.max()) for c in timeline.cores if len(c.end)]
    timeline.end = max([timeline.end, *ends])
    return timeline


def write_trace(timeline: Timeline, path: Path) -> None:
    """Write the trace file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(
            {
                "traceEvents": list(_trace_events(timeline)),
                "displayTimeUnit": "ms",
                "otherData": {
                    "allocation": timeline.allocation_id,
                    "began": timeline.begin,
                    "seconds": timeline.end - timeline.begin,
                    "occupancy": round(timeline.occupancy, 4),
                },
            },
            file,
        )
    temporary.rename(path)


def _notes(history: Path) -> Iterator[Note]:
    for line in history.read_text().splitlines():
        try:
            facts = json.loads(line)
            yield Note(float(facts.pop("at")), str(facts.pop("what")), facts)
        except (ValueError, KeyError, AttributeError):
            continue  # a line cut short by a kill


def _core(host: str, rank: int, slot: int, parts: list[Entries]) -> CoreSpans:
    if not parts:
        nothing = np.zeros(0)
        return CoreSpans(host, rank, slot, nothing, nothing, np.zeros(0, dtype=np.int64))
    entries = np.concatenate(parts)
    entries = entries[np.argsort(entries["start"], kind="stable")]
    begin = entries["start"].astype(np.float64)
    end = begin + entries["wall_s"]
    events = np.cumsum((entries["last"] - entries["first"]).astype(np.int64))
    gap = np.append(begin[1:] - end[:-1], np.inf)
    if len(gap) > MAX_SPANS:
        keep = np.sort(np.argpartition(gap, -MAX_SPANS)[-MAX_SPANS:])
        first = np.append(0, keep[:-1] + 1)
        counted = events[keep]
        return CoreSpans(host, rank, slot, begin[first], end[keep], np.diff(counted, prepend=0))
    return CoreSpans(host, rank, slot, begin, end, np.diff(events, prepend=0))


def _trace_events(timeline: Timeline) -> Iterator[dict[str, object]]:
    def microseconds(at: float) -> float:
        return round((at - timeline.begin) * 1e6, 1)

    for rank in sorted({c.rank for c in timeline.cores}):
        node = next(c.node for c in timeline.cores if c.rank == rank)
        yield {"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"node {rank} ({node})"}}
    for core in timeline.cores:
        yield {
            "ph": "M",
            "name": "thread_name",
            "pid": core.rank,
            "tid": core.slot,
            "args": {"name": f"core {core.slot}"},
        }
        for begin, end, events in zip(
            core.begin.tolist(), core.end.tolist(), core.events.tolist(), strict=True
        ):
            yield {
                "ph": "X",
                "name": f"{events} events",
                "cat": "events",
                "pid": core.rank,
                "tid": core.slot,
                "ts": microseconds(begin),
                "dur": round((end - begin) * 1e6, 1),
                "args": {"events": events},
            }
    for note in timeline.notes:
        yield {
            "ph": "i",
            "s": "g",
            "name": note.what,
            "pid": 0,
            "tid": 0,
            "ts": microseconds(note.at),
            "args": note.facts,
        }
