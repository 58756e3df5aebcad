"""Ranges' results are stored and read back exactly, or refused with the name of the column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.events.columns import BYTES, Column, Items, Schema, decode, encode

DTYPES = st.sampled_from(
    ["<f8", ">f8", "<f4", ">f2", "<i8", ">i4", "|u1", "|i1", ">u2", "|b1", "<c16", ">c8", "|S5", "|V3"]
)


@st.composite
def results(draw: st.DrawFn) -> tuple[int, dict[str, object]]:
    """A number of events and columns for them, jagged ones among them."""
    events = draw(st.integers(0, 6))
    counts = draw(
        hnp.arrays(draw(st.sampled_from(["<i4", ">u8", "|u1"])), events, elements=st.integers(0, 4))
    )
    columns: dict[str, object] = {"n": counts}
    for name in draw(st.lists(st.text(min_size=1, max_size=4), max_size=4, unique=True)):
        if name == "n":
            continue
        jagged = draw(st.booleans())
        rows = int(counts.sum()) if jagged else events
        shape = (rows, *draw(st.lists(st.integers(1, 3), max_size=2)))
        dtype = np.dtype(draw(DTYPES))
        size = int(np.prod(shape)) * dtype.itemsize
        raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype="u1")
        array = (raw & 1 if dtype.kind == "b" else raw).view(dtype).reshape(shape)
        columns[name] = Items(array, "n") if jagged else array
    return events, columns


@given(results())
def test_columns_come_back_as_they_went(result: tuple[int, dict[str, object]]) -> None:
    """Whatever the types, byte orders, shapes and counts: decode gives the values that encode was given."""
    events, columns = result
    schema, buffers = encode(columns, events)
    back = decode(schema, b"".join(buffers))
    assert isinstance(back, dict)
    assert list(back) == sorted(columns)
    for name, value in columns.items():
        array = np.asarray(value.content if isinstance(value, Items) else value)
        little = array.astype(array.dtype.newbyteorder("<"))
        assert back[name].dtype == little.dtype
        assert back[name].shape == array.shape
        swapped = array.dtype != little.dtype
        assert back[name].tobytes() == (little.tobytes() if swapped else array.tobytes())


@given(results())
def test_the_bytes_are_as_long_as_the_schema_says(result: tuple[int, dict[str, object]]) -> None:
    """A range takes 8 bytes a column and row_bytes a row, nothing else."""
    events, columns = result
    schema, buffers = encode(columns, events)
    rows = np.frombuffer(buffers[0], dtype="<u8")
    expected = sum(int(n) * c.row_bytes for n, c in zip(rows, schema.columns, strict=True))
    assert len(b"".join(buffers)) == 8 * len(columns) + expected


@pytest.mark.parametrize("data", [b"", b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_bytes_are_kept_as_they_are(data: bytes) -> None:
    """Plain bytes have the schema without columns and no header."""
    schema, buffers = encode(data, 7)
    assert schema == BYTES
    assert decode(schema, b"".join(buffers)) == bytes(data)


def test_a_view_that_is_not_contiguous_is_stored_by_value() -> None:
    """Slices and transposed arrays are stored as their values in C order."""
    array = np.arange(24, dtype="<i4").reshape(4, 6)[:, ::2].T
    schema, buffers = encode({"x": array}, 3)
    back = decode(schema, b"".join(buffers))
    assert isinstance(back, dict)
    assert np.array_equal(back["x"], array)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (5, "returned int"),
        (None, "returned NoneType"),
        ({}, "no columns"),
        ({"": np.zeros(3)}, "non-empty strings"),
        ({3: np.zeros(3)}, "non-empty strings"),
        ({"x": np.zeros(2)}, "'x'.*has 2 rows, the range needs 3"),
        ({"x": np.float64(1)}, "scalar|has 1 rows"),
        ({"x": np.array([None] * 3)}, "'x'.*cannot be stored"),
        ({"x": ["a", "b", "c"]}, "'x'.*cannot be stored"),
        ({"x": np.zeros((3, 0))}, "'x'.*axis of length 0"),
        ({"x": np.zeros(3, dtype=[("a", "<f8")])}, "'x'"),
        ({"x": np.empty(3, dtype="V0")}, "'x'"),
        ({"x": Items(np.zeros(3), "n")}, "'x'.*counts column 'n'"),
        ({"n": np.zeros(3), "x": Items(np.zeros(0), "n")}, "'x'.*counts column 'n'"),
        ({"n": np.ones(3, int), "x": Items(np.zeros(2), "n")}, "'x'.*has 2 rows, the range needs 3"),
        ({"n": np.array([2, -1, 0]), "x": Items(np.zeros(1), "n")}, "'n'|'x'"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(output: object, words: str) -> None:
    """Wrong types, lengths and counts are errors that say which column and why."""
    with pytest.raises(InvalidValue, match=words):
        encode(output, 3)


def test_the_difference_of_schemas_is_told_in_words() -> None:
    """A missing column, another type, shape or counter is named."""
    a = Schema(columns=(Column(name="x", dtype="<f8"), Column(name="y", dtype="<i4", item_shape=(3,))))
    assert a.difference(a) is None
    missing = a.difference(Schema(columns=a.columns[:1]))
    assert "'y' is missing" in str(missing)
    changed = a.difference(Schema(columns=(a.columns[0], Column(name="y", dtype="<i4", counts="n"))))
    assert "<i4[3]" in str(changed)
    assert "counted by 'n'" in str(changed)
