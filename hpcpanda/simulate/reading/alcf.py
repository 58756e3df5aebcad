"""Job logs of the Argonne Leadership Computing Facility as comma-separated columns under a header.

Columns, in any order: job, node_num, submit_time (Unix seconds), wait_time, run_time, wall_time (asked for; seconds).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Final

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.reading.mending import Facts
from hpcpanda.simulate.reading.rows import FlawKind, Rows, known

_COLUMNS: Final = ("job", "submit_time", "wait_time", "run_time", "node_num", "wall_time")


def is_alcf(head: Sequence[str]) -> bool:
    """Whether the first line is the header of such a file."""
    return bool(head) and set(_COLUMNS) <= set(_cells(head[0]))


def read_alcf(lines: Iterable[tuple[int, str]], source: str, *, nodes: int | None) -> tuple[Rows, Facts]:
    """All jobs of a file; the machine's nodes are not in it.

    Raises:
        InvalidValue: the header lacks a column.
    """
    rows = Rows()
    entries = iter(lines)
    names = _cells(next(entries, (1, ""))[1])
    if missing := [name for name in _COLUMNS if name not in names]:
        raise InvalidValue(source, f"line 1: the header lacks {', '.join(missing)}")
    places = [names.index(name) for name in _COLUMNS]
    for at, line in entries:
        if not line.strip():
            continue
        cells = _cells(line)
        try:
            job, *texts = [cells[place] for place in places]
            submit, wait, run, count, requested = map(known, texts)
        except (ValueError, IndexError):
            rows.notes.add(FlawKind.UNPARSABLE, at)
            continue
        if len(cells) > len(names):
            rows.notes.add(FlawKind.EXTRA_COLUMNS, at)
        rows.add(at, job, submit=submit, start=submit + wait, run=run, nodes=count, requested=requested)
    return rows, Facts(source=source, machine_nodes=nodes)


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r")
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
