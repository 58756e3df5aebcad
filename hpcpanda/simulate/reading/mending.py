"""From the raw jobs of a file to a trace that can be replayed: every flaw is counted, and mended or left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.reading.rows import Columns, FlawKind, Rows
from hpcpanda.simulate.trace import Floats, HostTrace, Ints

_AN_EPOCH = 1e8
"""Times beyond this are Unix seconds (1973), not seconds since a trace began."""
_SHORTEST_RUN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What else a reader knows."""

    source: str
    epoch: float = 0.0
    """Unix seconds that times are counted from; 0 when they are Unix seconds, or nobody knows."""
    machine_nodes: int | None = None
    """As told by the user or the file."""


def mend(rows: Rows, facts: Facts) -> HostTrace:
    """The jobs that ran, in order of submission.

    Raises:
        InvalidValue: no job is left.
    """
    table = rows.columns()
    if not len(rows):
        raise _nothing_left(rows, facts)
    _complete(table, rows)
    _distinct(table, rows)
    _in_order(table, rows)
    _begin_with_first_start(table, rows)
    if not len(table.lines):
        raise _nothing_left(rows, facts)
    machine = facts.machine_nodes or most_at_once(table.start, table.run, table.nodes)
    if facts.machine_nodes is None:
        remedy = (
            f"The trace does not tell the machine's nodes; {machine}, the most that ran at once, was taken."
        )
        rows.notes.add_all(FlawKind.MACHINE_SIZE, table.lines.min(keepdims=True), remedy=remedy)
    _drop(table, rows, table.nodes > machine, FlawKind.TOO_WIDE)
    if not len(table.lines):
        raise _nothing_left(rows, facts)
    first = float(table.submit[0])
    epoch = facts.epoch + first
    return HostTrace(
        submit=table.submit - first,
        nodes=table.nodes.astype(np.int64),
        run=table.run,
        requested=table.requested,
        start=table.start - first,
        machine_nodes=machine,
        epoch=epoch if epoch > _AN_EPOCH else 0.0,
        source=facts.source,
        flaws=rows.notes.flaws(),
    )


def _complete(table: Columns, rows: Rows) -> None:
    """Leave out jobs of which too little is known, and fill in what can be told of the others."""
    notes = rows.notes
    dated = bool(np.nanmedian(table.submit) > _AN_EPOCH) if np.isfinite(table.submit).any() else False
    floor = _AN_EPOCH if dated else 0.0
    _drop(table, rows, ~(table.submit >= floor), FlawKind.UNKNOWN_SUBMIT)
    _drop(table, rows, ~(table.run >= 0), FlawKind.UNKNOWN_RUN_TIME)
    _drop(table, rows, ~(table.nodes >= 1), FlawKind.UNKNOWN_NODES)
    zero = table.run == 0
    notes.add_all(FlawKind.ZERO_RUN_TIME, table.lines[zero])
    table.run = np.where(zero, _SHORTEST_RUN_S, table.run)
    early = table.start < table.submit
    notes.add_all(FlawKind.START_BEFORE_SUBMIT, table.lines[early])
    notes.add_all(FlawKind.UNKNOWN_START, table.lines[np.isnan(table.start)])
    table.start = np.where(early, np.nan, table.start)
    unknown = ~(table.requested > 0)
    notes.add_all(FlawKind.UNKNOWN_REQUEST, table.lines[unknown])
    notes.add_all(FlawKind.OVERRUN, table.lines[table.run > table.requested])
    table.requested = np.where(unknown, table.run, np.maximum(table.requested, table.run))


def _distinct(table: Columns, rows: Rows) -> None:
    """Keep the first line of a job that is there several times; a job that ran twice has other times."""
    start = np.nan_to_num(table.start, nan=-1.0)
    order = np.lexsort((table.lines, table.run, start, table.submit, table.jobs))
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (table.jobs, table.submit, start, table.run):
        same &= column[order][1:] == column[order][:-1]
    again = np.zeros(len(order), dtype=bool)
    again[order[1:][same]] = True
    _drop(table, rows, again, FlawKind.DUPLICATE)


def _in_order(table: Columns, rows: Rows) -> None:
    if len(table.lines):
        late = table.submit < np.maximum.accumulate(table.submit)
        rows.notes.add_all(FlawKind.OUT_OF_ORDER, table.lines[late])
        table.keep(np.lexsort((table.lines, table.submit)))


def _begin_with_first_start(table: Columns, rows: Rows) -> None:
    """Nobody knows what the machine did before the first start: what waited then is the queue to begin with."""
    told = np.isfinite(table.start)
    if 2 * np.count_nonzero(told) > len(told):
        first = table.start[told].min()
        before = table.submit < first
        rows.notes.add_all(FlawKind.WAITED_BEFORE, table.lines[before])
        table.submit = np.where(before, first, table.submit)


def _drop(
    table: Columns, rows: Rows, which: np.ndarray[tuple[int], np.dtype[np.bool_]], kind: FlawKind
) -> None:
    rows.notes.add_all(kind, table.lines[which])
    if which.any():
        table.keep(~which)


def most_at_once(start: Floats, run: Floats, nodes: Floats | Ints) -> int:
    """The most nodes that jobs held at one time; jobs without a known start count as the widest of them alone."""
    told = np.isfinite(start)
    times = np.concatenate([start[told] + run[told], start[told]])
    steps = np.concatenate([-nodes[told], nodes[told]])
    busy = np.cumsum(steps[np.argsort(times, kind="stable")])
    return int(max(busy.max(initial=0), nodes.max(initial=0)))


def _nothing_left(rows: Rows, facts: Facts) -> InvalidValue:
    found = "; ".join(f"{f.count} {f.kind}, first in line {f.first_line}" for f in rows.notes.flaws())
    return InvalidValue(facts.source, f"has no job that can be replayed ({found or 'it is empty'})")
