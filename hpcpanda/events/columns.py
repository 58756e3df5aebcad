"""What a range puts into a segment: bytes as they are, or columns of arrays in a fixed layout.

Layout of one range's columns: a little-endian ``uint64`` number of rows for each column, then each
column's rows, C order, in the order of the schema. The schema itself stands once in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hpcpanda.domain.errors import InvalidValue

Array = npt.NDArray[np.generic]
Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Items:
    """A column with any number of rows an event: all rows of the range one after the other, and the
    name of the integer column that says how many of them belong to each event."""

    content: npt.ArrayLike
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Name and type of a column; ``counts`` names the column that counts its rows an event, if not one."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    dtype: str
    """NumPy's type string, for example ``<f8``."""
    item_shape: tuple[int, ...] = ()
    counts: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.item_shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Columns of a task's output, sorted by name; no columns: the output is plain bytes."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    columns: tuple[Column, ...] = ()

    def difference(self, other: Schema) -> str | None:
        """The first difference in words, for an error message; None when equal."""
        if self == other:
            return None
        ours, theirs = ({c.name: c for c in s.columns} for s in (self, other))
        for name in sorted(ours.keys() | theirs.keys()):
            a, b = ours.get(name), theirs.get(name)
            if a is None or b is None:
                return f"column {name!r} is missing in one of two ranges"
            if a != b:
                return f"column {name!r} is {_describe(a)} in one range and {_describe(b)} in another"
        return "the columns differ"


BYTES = Schema()
"""The schema of output that is plain bytes."""

_KINDS = "biufcSV"


def _describe(column: Column) -> str:
    shape = "".join(f"[{n}]" for n in column.item_shape)
    return f"{column.dtype}{shape}" + (f" counted by {column.counts!r}" if column.counts else "")


def encode(output: object, events: int) -> tuple[Schema, list[Buffer]]:
    """The schema of a payload's result for a range of ``events`` events, and the bytes to store.

    Raises:
        InvalidValue: the result is neither bytes nor a mapping of arrays, an array has the wrong
            length, or its type cannot be stored.
    """
    if isinstance(output, bytes | bytearray | memoryview):
        return BYTES, [bytes(output)]
    if not isinstance(output, Mapping):
        raise InvalidValue(
            "result", f"the payload returned {type(output).__name__}; return a mapping of arrays, or bytes"
        )
    if not output:
        raise InvalidValue("result", "the payload returned no columns")
    if not all(isinstance(name, str) and name for name in output):
        raise InvalidValue("result", "column names must be non-empty strings")
    columns: list[Column] = []
    arrays: list[Array] = []
    for name in sorted(output):
        column, array = _column(name, output[name])
        columns.append(column)
        arrays.append(array)
    _check_rows(columns, arrays, events)
    rows = np.array([len(a) for a in arrays], dtype="<u8").tobytes()
    return Schema(columns=tuple(columns)), [rows, *(a.reshape(-1).view(np.uint8).data for a in arrays)]


def _column(name: str, value: object) -> tuple[Column, Array]:
    counts = value.counts if isinstance(value, Items) else None
    array = np.ascontiguousarray(value.content if isinstance(value, Items) else value)
    kind = array.dtype
    if kind.kind not in _KINDS or kind.hasobject or kind.names is not None or not kind.itemsize:
        raise InvalidValue(
            f"result[{name!r}]", f"type {array.dtype} cannot be stored; use numbers, bool or fixed bytes"
        )
    if array.ndim == 0:
        raise InvalidValue(f"result[{name!r}]", "is a scalar; its first axis must be the events")
    if 0 in array.shape[1:]:
        raise InvalidValue(f"result[{name!r}]", f"has an axis of length 0: shape {array.shape}")
    little = array.dtype.newbyteorder("<")
    array = array.astype(little, copy=False)
    column = Column(name=name, dtype=little.str, item_shape=array.shape[1:], counts=counts)
    return column, array


def _check_rows(columns: Sequence[Column], arrays: Sequence[Array], events: int) -> None:
    by_name = {c.name: (c, a) for c, a in zip(columns, arrays, strict=True)}
    for column, array in zip(columns, arrays, strict=True):
        if column.counts is None:
            expected = events
        else:
            counter = by_name.get(column.counts)
            if counter is None or counter[0].counts is not None or counter[1].dtype.kind not in "iu":
                raise InvalidValue(
                    f"result[{column.name!r}]",
                    f"counts column {column.counts!r} is not an integer event column",
                )
            if np.any(np.less(counter[1], 0)):
                raise InvalidValue(f"result[{column.counts!r}]", "counts rows and has negative values")
            expected = int(counter[1].sum())
        if len(array) != expected:
            raise InvalidValue(
                f"result[{column.name!r}]", f"has {len(array)} rows, the range needs {expected}"
            )


def decode(schema: Schema, data: Buffer) -> bytes | dict[str, Array]:
    """The inverse of :func:`encode`: plain bytes, or the columns as arrays over ``data``."""
    if schema == BYTES:
        return bytes(data)
    n = len(schema.columns)
    rows = np.frombuffer(data, dtype="<u8", count=n)
    at = 8 * n
    result: dict[str, Array] = {}
    for column, count in zip(schema.columns, rows.tolist(), strict=True):
        shape = (count, *column.item_shape)
        size = int(np.prod(shape, dtype=np.int64))
        result[column.name] = np.frombuffer(data, dtype=column.dtype, count=size, offset=at).reshape(shape)
        at += count * column.row_bytes
    return result
