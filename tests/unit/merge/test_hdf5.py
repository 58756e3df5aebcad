"""HDF5 outputs: columns, attributes, the view, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue, MergeFailed
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.columns import Items
from hpcpanda.merge import digest_columns, digest_file, digest_sample, merge, view, view_path
from hpcpanda.merge.hdf5 import Hdf5Merger
from hpcpanda.merge.plan import make_plan

H5 = OutputFormat.HDF5


@pytest.fixture
def payload(payload_of: Any) -> Any:
    """Columns of many kinds."""
    return payload_of(H5)


def test_any_reader_sees_the_columns(spool: Any, tmp_path: Path, payload: Any) -> None:
    """Values, types and shapes are those of a serial run; jagged columns name their counter."""
    merge(sources=spool.nodes(100, payload), format=H5, output=tmp_path / "o.h5", provenance={})
    with h5py.File(tmp_path / "o.h5") as file:
        for name, value in payload(0, 100).items():
            array = value.content if isinstance(value, Items) else value
            assert file[name].dtype == array.dtype
            assert np.array_equal(file[name][()], array)
            assert file[name].attrs.get("counts") == getattr(value, "counts", None)
            assert file[name].chunks is None


def test_rows_are_the_events_listed(spool: Any, tmp_path: Path, payload: Any) -> None:
    """With failed events left out, the attributes say which events the rows are."""
    source = spool.node("a", [(7, 9), (0, 5)], payload)
    lost = IntervalSet.span(5, 7)
    merge(sources=[source], format=H5, output=tmp_path / "o.h5", provenance={}, failed=lost)
    with h5py.File(tmp_path / "o.h5") as file:
        assert file.attrs["events"].tolist() == [[0, 5], [7, 9]]
        assert file.attrs["failed"].tolist() == [[5, 7]]
        assert file["event"][()].tolist() == [0, 1, 2, 3, 4, 7, 8]


@pytest.mark.parametrize("events", [0, 1, 37, 100])
def test_a_sample_has_the_digest_of_a_short_serial_run(
    spool: Any, tmp_path: Path, payload: Any, events: int
) -> None:
    """The first n events of a merged file are compared to a serial run over n events."""
    merge(sources=spool.nodes(100, payload), format=H5, output=tmp_path / "o.h5", provenance={})
    assert digest_sample(tmp_path / "o.h5", events) == digest_columns(payload(0, events))
    with pytest.raises(InvalidValue, match="fewer"):
        digest_sample(tmp_path / "o.h5", 101)


def test_equal_content_makes_equal_files(spool: Any, tmp_path: Path, payload: Any) -> None:
    """Two merges of differently cut ranges are the same byte by byte."""
    for seed in (1, 2):
        sources = spool.nodes(100, payload, seed=seed)
        merge(sources=sources, format=H5, output=tmp_path / f"{seed}.h5", provenance={})
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_events_without_items_and_empty_columns(spool: Any, tmp_path: Path) -> None:
    """Ranges whose jagged columns are empty, some or all of them, are merged."""

    def few(first: int, last: int) -> dict[str, object]:
        counts = np.array([e == 13 for e in range(first, last)], dtype="<i4")
        none = np.zeros(last - first, dtype="<i4")
        return {
            "n": counts,
            "x": Items(np.full(counts.sum(), 1.5), "n"),
            "m": none,
            "y": Items(np.empty(0), "m"),
        }

    result = merge(sources=spool.nodes(30, few), format=H5, output=tmp_path / "o.h5", provenance={})
    assert result.digest == digest_columns(few(0, 30)) == digest_file(result.path, H5)
    with h5py.File(result.path) as file:
        assert file["x"][()].tolist() == [1.5]
        assert file["y"].shape == (0,)


@pytest.mark.parametrize("a_list", [3, 1000])
def test_the_view_shows_the_content_before_it_is_copied(
    spool: Any, tmp_path: Path, payload: Any, a_list: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the copy is under way the view reads as the merged file will; then it is gone."""
    monkeypatch.setattr(view, "RUNS_A_LIST", a_list)
    sources = spool.nodes(60, payload)
    merger = Hdf5Merger(view_from=0)
    seen: list[str] = []
    real = merger.inspect

    def look(*args: Any) -> None:
        seen.append(digest_file(view_path(tmp_path / "o.h5"), H5))
        real(*args)

    monkeypatch.setattr(merger, "inspect", look)
    monkeypatch.setattr("hpcpanda.merge.merging.MERGERS", {H5: merger})
    result = merge(sources=sources, format=H5, output=tmp_path / "o.h5", provenance={})
    assert seen == [result.digest]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5", "o.h5.manifest.json", "spool"]
    assert "o.view.h5" in result.manifest.read_text()


def test_a_view_too_large_is_left_out_with_a_note(
    spool: Any, tmp_path: Path, payload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More pieces than a view can list are no error; the manifest says that there was none."""
    monkeypatch.setattr("hpcpanda.merge.hdf5.VIEW_RUNS", 5)
    plan = make_plan(spool.nodes(60, payload))
    merger = Hdf5Merger(view_from=0)
    layout = merger.lay_out(plan, tmp_path / "t")
    assert "more than 5 pieces" in str(merger.preview(plan, layout, tmp_path / "o.h5"))
    assert not view_path(tmp_path / "o.h5").exists()


def test_a_file_named_like_the_view_is_not_deleted(spool: Any, tmp_path: Path, payload: Any) -> None:
    """Only views written by the merge are removed."""
    with h5py.File(tmp_path / "o.view.h5", "w") as file:
        file["mine"] = 1
    merge(sources=spool.nodes(10, payload), format=H5, output=tmp_path / "o.h5", provenance={})
    assert (tmp_path / "o.view.h5").exists()


def test_journals_with_other_columns_are_refused(spool: Any, tmp_path: Path) -> None:
    """The columns that differ and the two journals are named."""
    a = spool.node("a", [(0, 3)], lambda f, e: {"x": np.zeros(e - f)})
    b = spool.node("b", [(3, 5)], lambda f, e: {"x": np.zeros(e - f, dtype="<f4")})
    with pytest.raises(MergeFailed, match=r"'x' is <f8 in one range and <f4.*a\.journal and .*b\.journal"):
        merge(sources=[b, a], format=H5, output=tmp_path / "o.h5", provenance={})


@pytest.mark.parametrize("names", [("a", "a/b"), ("/a",), ("a//b",), (".",), ("a/",), ("..",), ("a\0b",)])
def test_names_that_hdf5_cannot_hold_are_refused(spool: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Column names that are no dataset paths, or hide each other, are named."""
    source = spool.node("a", [(0, 3)], lambda f, e: {n: np.zeros(e - f) for n in names})
    with pytest.raises(MergeFailed, match="column"):
        merge(sources=[source], format=H5, output=tmp_path / "o.h5", provenance={})
