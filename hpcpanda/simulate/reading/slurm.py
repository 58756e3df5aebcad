"""Exports of Slurm's accounting: ``sacct -P`` or ``-p`` with a header, whatever the order of columns.

Source: sacct(1). Of the columns, ``JobID``, ``Submit``, ``Start``, one of ``Elapsed``, ``ElapsedRaw`` and ``End``, and one
of ``AllocNodes`` and ``NNodes`` are needed; ``Timelimit`` or ``TimelimitRaw``, and ``State`` are used where they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isnan
from typing import Final

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.reading.mending import Facts
from hpcpanda.simulate.reading.rows import UNKNOWN, FlawKind, Rows, known
from hpcpanda.simulate.reading.times import duration, moment

_NEEDED: Final = (
    ("jobid", "jobidraw"),
    ("submit",),
    ("start",),
    ("elapsed", "elapsedraw", "end"),
    ("allocnodes", "nnodes"),
)
_SEPARATORS: Final = "|,;\t"
_RUNNING: Final = ("RUNNING", "SUSPENDED", "COMPLETING", "STOPPED")
_WAITING: Final = ("PENDING", "REQUEUED", "CONFIGURING")


def is_slurm(head: Sequence[str]) -> bool:
    """Whether the first line is the header of such an export."""
    if not head:
        return False
    names, _ = _header(head[0])
    return "submit" in names and bool({"jobid", "jobidraw"} & set(names))


def read_slurm(lines: Iterable[tuple[int, str]], source: str, *, nodes: int | None) -> tuple[Rows, Facts]:
    """All jobs of an export; the machine's nodes are not in it.

    Raises:
        InvalidValue: the header lacks a column.
    """
    rows = Rows()
    entries = iter(lines)
    names, separator = _header(next(entries, (1, ""))[1])
    if missing := [" or ".join(choice) for choice in _NEEDED if not set(choice) & set(names)]:
        raise InvalidValue(
            source, f"line 1: the header lacks {', '.join(missing)}; export with sacct -P -o ..."
        )
    record = _Record(names)
    for at, line in entries:
        if not line.strip():
            continue
        cells = line.rstrip("\r").split(separator)
        try:
            _add(rows, at, record.of(cells))
        except (ValueError, IndexError):
            rows.notes.add(FlawKind.UNPARSABLE, at)
    return rows, Facts(source=source, machine_nodes=nodes)


def _header(line: str) -> tuple[list[str], str]:
    separator = max(_SEPARATORS, key=line.count)
    return [name.strip().lower() for name in line.rstrip("\r").split(separator)], separator


class _Record:
    """Looks up cells by the names of columns."""

    def __init__(self, names: list[str]) -> None:
        self._place = {name: place for place, name in reversed(list(enumerate(names)))}

    def of(self, cells: list[str]) -> Callable[[str], str]:
        place = self._place
        return lambda name: cells[place[name]] if name in place else ""


def _add(rows: Rows, at: int, cell: Callable[[str], str]) -> None:
    job = cell("jobid") or cell("jobidraw")
    if "." in job:
        rows.notes.add(FlawKind.JOB_STEPS, at)
        return
    if not job[:1].isdigit():
        raise ValueError(job)
    state = cell("state").partition(" ")[0].upper()
    submit, start = moment(cell("submit")), moment(cell("start"))
    run = _run(cell, start)
    if state in _WAITING or (isnan(start) and not run > 0):
        rows.notes.add(FlawKind.NEVER_STARTED, at)
        return
    if state in _RUNNING:
        rows.notes.add(FlawKind.STILL_RUNNING, at)
    nodes = _count(cell("allocnodes"))
    if not nodes >= 1:
        # A job that was cancelled in the queue has a start, that of its cancelling, and no nodes.
        if "CANCELLED" in state and not run > 0:
            rows.notes.add(FlawKind.NEVER_STARTED, at)
            return
        nodes = _count(cell("nnodes"))
        if cell("allocnodes") and nodes >= 1:
            rows.notes.add(FlawKind.REQUESTED_NODES, at)
    rows.add(at, job, submit=submit, start=start, run=run, nodes=nodes, requested=_limit(cell))


def _run(cell: Callable[[str], str], start: float) -> float:
    for text in (cell("elapsedraw"), cell("elapsed")):
        if text:
            return duration(text)
    run = moment(cell("end")) - start
    return run if run >= 0 else UNKNOWN


def _limit(cell: Callable[[str], str]) -> float:
    minutes = cell("timelimitraw")
    if minutes.isdigit():
        return known(minutes) * 60
    return duration(cell("timelimit"))


def _count(text: str) -> float:
    """Nodes; sacct writes multiples of 1024 with a K unless told --noconvert."""
    return known(text[:-1]) * 1024 if text.endswith("K") else known(text)
