"""Compares what a payload made of the same events in two cuts, and finds the first event that differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hpcpanda.events.columns import BYTES, Array, Schema, decode
from hpcpanda.payload.trial import Piece


class Content:
    """The output of one cut: the concatenated columns, or bytes, of its ranges in event order."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.schema: Schema = pieces[0].schema
        self.first = pieces[0].first
        self.size = sum(len(p.data) for p in pieces)
        self.columns: dict[str, Array] = {}
        self.counts = {c.name: c.counts for c in self.schema.columns if c.counts is not None}
        parts = [decode(p.schema, p.data) for p in pieces]
        columns = [part for part in parts if not isinstance(part, bytes)]
        for name in (c.name for c in self.schema.columns):
            self.columns[name] = np.concatenate([part[name] for part in columns])

    def event_of_row(self, column: str, row: int) -> int:
        """The event that a row of a column belongs to."""
        counter = self.counts.get(column)
        if counter is None:
            return self.first + row
        ends = np.cumsum(self.columns[counter].astype(np.int64))
        return self.first + int(np.searchsorted(ends, row, side="right"))

    def event_of_byte(self, offset: int) -> int:
        """The first event of the range that wrote the byte at ``offset``."""
        end = 0
        for piece in self.pieces:
            end += len(piece.data)
            if offset < end:
                return piece.first
        return self.pieces[-1].first


def schema_change(pieces: Sequence[Piece]) -> tuple[int, str] | None:
    """The first event of the first range whose columns differ from those of the range before, and how."""
    for before, after in pairwise(pieces):
        difference = before.schema.difference(after.schema)
        if difference is not None:
            return after.first, difference
    return None


def first_difference(a: Content, b: Content) -> tuple[int, str | None, str] | None:
    """Event, column and kind of the first difference between two cuts of the same events; None if equal.

    Plain bytes have no columns; their event is exact if ``a`` was cut into single events. Values are
    compared bit by bit: a NaN equals itself, 0.0 and -0.0 differ.
    """
    difference = a.schema.difference(b.schema)
    if difference is not None:
        return a.first, None, difference
    if a.schema == BYTES:
        x, y = (np.frombuffer(b"".join(p.data for p in c.pieces), np.uint8) for c in (a, b))
        at = _first_unequal(x, y)
        return None if at is None else (a.event_of_byte(at), None, f"byte {at} of the output differs")
    found: list[tuple[int, str, str]] = []
    for name, values in a.columns.items():
        row = _first_unequal(_rows(values), _rows(b.columns[name]))
        if row is not None:
            event = min(c.event_of_row(name, row) for c in (a, b))
            found.append((event, name, _shown(values, b.columns[name], row)))
    # A jagged column shifts when its counts do: of one event, the counts come first.
    return min(found, key=lambda f: (f[0], f[1] in a.counts, f[1]), default=None)


def nan_columns(content: Content) -> list[tuple[str, int]]:
    """Columns that hold NaN, each with its first event."""
    found = []
    for name, values in content.columns.items():
        if values.dtype.kind in "fc":
            rows = np.isnan(values).any(axis=tuple(range(1, values.ndim)))
            if rows.any():
                found.append((name, content.event_of_row(name, int(rows.argmax()))))
    return found


def _rows(values: Array) -> Array:
    row_bytes = values.dtype.itemsize * math.prod(values.shape[1:])
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(len(values), row_bytes)


def _first_unequal(x: Array, y: Array) -> int | None:
    """The first row in which two arrays differ, or the end of the shorter one."""
    shorter = min(len(x), len(y))
    unequal = x[:shorter] != y[:shorter]
    if unequal.ndim > 1:
        unequal = unequal.any(axis=1)
    if unequal.any():
        return int(unequal.argmax())
    return None if len(x) == len(y) else shorter


def _shown(x: Array, y: Array, row: int) -> str:
    a, b = ("nothing" if row >= len(v) else str(v[row])[:60] for v in (x, y))
    return f"{a} in one cut, {b} in the other"
