"""What every core of an allocation did, when: collected from its journals and history, kept as a trace file.

The trace is in the Trace Event Format ("JSON Object Format") that Perfetto and chrome://tracing open:
a process a node, a thread a core, times in microseconds since the allocation began. An MPI job on several nodes is a
process of its own with one thread.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcpanda.allocation.spool import STATUS, Spool, journal_pattern, read_message
from hpcpanda.domain.errors import CorruptData
from hpcpanda.events.journal import Entries, core_seconds, read_journal

MAX_SPANS = 2000
"""Spans kept of a core; closer neighbours are joined beyond that."""

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the allocation's history."""

    at: float
    what: str
    facts: dict[str, str | float]


class Doing(StrEnum):
    """What a core was at work on."""

    EVENTS = "events"
    JOB = "job"
    MPI_JOB = "mpi-job"


@dataclass(slots=True)
class CoreSpans:
    """When one core was at work on one kind of things: begin and end of each span, Unix seconds, and events or jobs
    finished in it. The cores of an MPI job are one."""

    node: int
    """Number of the node in the allocation, by name; MPI jobs come after the nodes, in order of their begin."""
    host: str
    slot: int
    doing: Doing
    begin: Times
    end: Times
    events: npt.NDArray[np.int64]


@dataclass(slots=True)
class Timeline:
    """The life of an allocation."""

    allocation_id: str
    begin: float
    end: float
    finished_s: float = 0.0
    """Core-seconds of all that was finished: an MPI job has all cores of its nodes."""
    at_work_s: float = 0.0
    """Core-seconds that cores were at work, as the head has counted once a second."""
    cores: list[CoreSpans] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def core_seconds(self) -> float:
        """Of all cores over the whole allocation, start-up and end included; of lost nodes until that was known."""
        total, at, nodes, cores = 0.0, self.begin, 0.0, 0.0
        for note in (*self.notes, Note(self.end, "end", {})):
            total += (note.at - at) * nodes * cores
            at = note.at
            nodes = float(note.facts.get("nodes", nodes))
            cores = float(note.facts.get("cores", cores))
        return total

    @property
    def occupancy(self) -> float:
        """Share of the cores' time in which they were at work, 0..1; also on what was ended unfinished, by a
        preemption or a limit."""
        return self._share(max(self.at_work_s, self.finished_s))

    @property
    def finished(self) -> float:
        """Share of the cores' time that went into finished events and jobs, 0..1."""
        return self._share(self.finished_s)

    def _share(self, seconds: float) -> float:
        total = self.core_seconds
        return min(1.0, seconds / total) if total > 0 else 0.0


def collect(spool: Spool, allocation_id: str) -> Timeline:
    """Read the journals and the history of an allocation.

    Raises:
        FileNotFoundError: the allocation has no history: it never began.
    """
    notes = list(_notes(spool.allocation(allocation_id).history))
    mpi_jobs = {n.facts.get("pack") for n in notes if n.facts.get("kind") == "mpi-job"}
    timeline = Timeline(allocation_id, notes[0].at, max(n.at for n in notes), notes=notes)
    found: dict[tuple[bool, str], list[Entries]] = {}
    cores: dict[str, int] = {}
    kept = spool.allocation(allocation_id).journals.glob("*.journal")
    live = (spool.path / "tasks").glob(f"*/events/{journal_pattern(allocation_id)}")
    for path in sorted((*kept, *live)):
        try:
            journal = read_journal(path)
        except CorruptData:
            continue
        if journal.header is None:
            continue
        host = journal.header.host
        mpi = journal.header.pack_id in mpi_jobs
        if not mpi:
            cores[host] = max(cores.get(host, 0), journal.header.cores)
        timeline.finished_s += core_seconds(journal.entries)
        found.setdefault((mpi, host), []).append(journal.entries)
    joined = {key: np.concatenate(parts) for key, parts in found.items()}
    for node, (mpi, host) in enumerate(sorted(joined, key=lambda k: (k[0], _first(joined[k]) * k[0], k[1]))):
        entries = joined[mpi, host]
        if mpi:
            timeline.cores.append(_spans(node, host, 0, Doing.MPI_JOB, entries))
        else:
            timeline.cores += _of_node(node, host, cores[host], entries)
    with contextlib.suppress(FileNotFoundError, CorruptData):
        timeline.at_work_s = read_message(spool.allocation(allocation_id).status, STATUS).busy_s
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
                    "core_seconds": round(timeline.core_seconds, 3),
                    "occupancy": round(timeline.occupancy, 4),
                    "finished": round(timeline.finished, 4),
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


def _of_node(node: int, host: str, cores: int, entries: Entries) -> Iterator[CoreSpans]:
    """Events and jobs of every core of a node."""
    events, jobs = entries[entries["cores"] == 0], entries[entries["cores"] > 0]
    held = _held_slots(jobs, cores)
    for slot in range(cores):
        yield _spans(node, host, slot, Doing.EVENTS, events[events["slot"] == slot])
        yield _spans(node, host, slot, Doing.JOB, jobs[held[:, slot]])


def _held_slots(jobs: Entries, cores: int) -> npt.NDArray[np.bool_]:
    """Which slots each job held. A journal tells the first and the number: the others are side by side where that was
    possible, else the next ones that no other job had at the time."""
    held = np.zeros((len(jobs), cores), dtype=np.bool_)
    begin, end = jobs["start"], jobs["start"] + jobs["wall_s"]
    held[np.arange(len(jobs)), np.minimum(jobs["slot"], cores - 1)] = True
    for at in np.lexsort((jobs["start"], jobs["cores"])):
        beside = (begin < end[at]) & (begin[at] < end)
        beside[at] = False
        taken = held[beside].any(axis=0)
        first, missing = int(jobs["slot"][at]), int(jobs["cores"][at]) - 1
        order = [s for s in range(first + 1, cores) if not taken[s]]
        held[at, order[:missing]] = True
    return held


def _first(entries: Entries) -> float:
    return float(entries["start"].min()) if len(entries) else 0.0


def _spans(node: int, host: str, slot: int, doing: Doing, entries: Entries) -> CoreSpans:
    entries = entries[np.argsort(entries["start"], kind="stable")]
    begin = entries["start"].astype(np.float64)
    end = begin + entries["wall_s"]
    events = np.cumsum((entries["last"] - entries["first"]).astype(np.int64))
    gap = np.append(begin[1:] - end[:-1], np.inf)
    if len(entries) > MAX_SPANS:
        keep = np.sort(np.argpartition(gap, -MAX_SPANS)[-MAX_SPANS:])
        first = np.append(0, keep[:-1] + 1)
        begin, end, events = begin[first], end[keep], events[keep]
    return CoreSpans(node, host, slot, doing, begin, end, np.diff(events, prepend=0))


def _trace_events(timeline: Timeline) -> Iterator[dict[str, object]]:
    def microseconds(at: float) -> float:
        return round((at - timeline.begin) * 1e6, 1)

    for node, host in sorted({(c.node, c.host) for c in timeline.cores}):
        yield {"ph": "M", "name": "process_name", "pid": node, "args": {"name": host}}
    for node, slot, mpi in sorted({(c.node, c.slot, c.doing is Doing.MPI_JOB) for c in timeline.cores}):
        name = "all cores" if mpi else f"core {slot}"
        yield {"ph": "M", "name": "thread_name", "pid": node, "tid": slot, "args": {"name": name}}
    for core in timeline.cores:
        for begin, end, events in zip(
            core.begin.tolist(), core.end.tolist(), core.events.tolist(), strict=True
        ):
            yield {
                "ph": "X",
                "name": f"{events} events" if core.doing is Doing.EVENTS else core.doing,
                "cat": core.doing,
                "pid": core.node,
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
