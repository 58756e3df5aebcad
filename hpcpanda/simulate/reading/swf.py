"""The Standard Workload Format of the Parallel Workloads Archive, version 2.2.

Source: https://www.cs.huji.ac.il/labs/parallel/workload/swf.html. Lists of nodes in braces behind the 18 fields, one
entry a processor, are an extension of the Czech national grid's traces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final

from hpcpanda.simulate.reading.mending import Facts
from hpcpanda.simulate.reading.node_lists import NodeLists
from hpcpanda.simulate.reading.rows import UNKNOWN, FlawKind, Rows, known, number

_FIELDS: Final = 18
_NEEDED: Final = 11
"""Up to the status; models leave fields behind it out."""
_CANCELLED: Final = "5"
_PARTS: Final = ("2", "3", "4")
_HEADER: Final = re.compile(r";\s*(MaxNodes|MaxProcs|UnixStartTime)\s*:\s*(\d{1,11})\b")


def is_swf(head: Sequence[str]) -> bool:
    """Whether most of a file's first lines, but for comments behind semicolons, are of this format."""
    lines = [line for line in head if line.strip() and not line.lstrip().startswith(";")]
    if not lines:
        return any(_HEADER.match(line.lstrip()) for line in head)
    return 2 * sum(map(_is_job, lines)) > len(lines)


def _is_job(line: str) -> bool:
    fields = line.split(None, _NEEDED)[:_NEEDED]
    try:
        return len([number(field) for field in fields]) == _NEEDED
    except ValueError:
        return False


def read_swf(
    lines: Iterable[tuple[int, str]], source: str, *, nodes: int | None, cores_per_node: int | None
) -> tuple[Rows, Facts]:
    """All jobs of a file, and what its header tells.

    Args:
        lines: numbers and texts.
        source: for errors.
        nodes: of the machine; None takes the header's.
        cores_per_node: jobs count processors; this many make a node. None counts the distinct nodes of a job's list;
            where it has none, the header's MaxProcs and MaxNodes tell, else each processor is taken for a node.
    """
    reader = _Reader(cores_per_node)
    for at, line in lines:
        fields = line.split(None, _NEEDED)
        if not fields:
            continue
        if fields[0].startswith(";"):
            reader.note_header(line.lstrip())
            continue
        try:
            reader.add(at, fields)
        except (ValueError, IndexError):
            reader.rows.notes.add(FlawKind.UNPARSABLE, at)
    reader.lists.report(reader.rows.notes)
    told = nodes or reader.header_nodes
    return reader.rows, Facts(
        source=source, epoch=float(reader.header.get("UnixStartTime", 0)), machine_nodes=told
    )


class _Reader:
    def __init__(self, cores_per_node: int | None) -> None:
        self.rows = Rows()
        self.lists = NodeLists()
        self.header: dict[str, int] = {}
        self._told = cores_per_node
        self._cores = cores_per_node or 0

    def note_header(self, line: str) -> None:
        if match := _HEADER.match(line):
            self.header.setdefault(match[1], int(match[2]))
            self._cores = self._told or self._header_cores

    @property
    def _header_cores(self) -> int:
        """Cores a node as the header tells; 0 when it does not."""
        procs, nodes = self.header.get("MaxProcs", 0), self.header.get("MaxNodes", 0)
        return ceil(procs / nodes) if procs and nodes else 0

    @property
    def header_nodes(self) -> int | None:
        """The machine's nodes as the header tells, in nodes of as many cores as jobs are counted in."""
        procs, nodes = self.header.get("MaxProcs"), self.header.get("MaxNodes")
        if self._told and procs:
            return ceil(procs / self._told)
        return nodes or procs

    def add(self, at: int, fields: list[str]) -> None:
        """One job.

        Raises:
            ValueError: a field is no number.
            IndexError: fields are missing.
        """
        notes, status = self.rows.notes, fields[10]
        number(fields[0])
        wait, run = known(fields[2]), number(fields[3])
        if status in _PARTS:
            notes.add(FlawKind.PARTIAL_EXECUTION, at)
            return
        if status == _CANCELLED and run <= 0:
            notes.add(FlawKind.NEVER_STARTED, at)
            return
        submit, requested = known(fields[1]), known(fields[8])
        processors = known(fields[4])
        if not processors >= 1:
            processors = known(fields[7])
            if processors >= 1:
                notes.add(FlawKind.REQUESTED_NODES, at)
        nodes = self._nodes(at, processors, fields[11] if len(fields) > _NEEDED else "", submit + wait, run)
        self.rows.add(
            at,
            fields[0],
            submit=submit,
            start=submit + wait,
            run=run if run >= 0 else UNKNOWN,
            nodes=nodes,
            requested=requested,
        )

    def _nodes(self, at: int, processors: float, behind: str, start: float, run: float) -> float:
        extra = behind.split(None, _FIELDS - _NEEDED)[_FIELDS - _NEEDED :]
        if extra:
            self.rows.notes.add(FlawKind.EXTRA_COLUMNS, at)
            if not self._told and (listed := self.lists.add(at, extra[0], start, run)):
                return listed
        if not processors >= 1:
            return UNKNOWN
        if not self._cores:
            self.rows.notes.add(FlawKind.PROCESSORS_AS_NODES, at)
            return ceil(processors)
        if processors % self._cores:
            self.rows.notes.add(FlawKind.ROUNDED_TO_NODES, at)
        return ceil(processors / self._cores)
