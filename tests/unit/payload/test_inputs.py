"""Input files are counted, and ranges cut where reading is cheap."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.payload import inputs as inputs_module
from hpcpanda.payload.inputs import cut_points, describe

LHE = "<LesHouchesEvents>\n<header>\n<event>\n</header>\n<init>\n</init>\n{}</LesHouchesEvents>\n"
EVENT = "<event>\n 1 2 3\n</event>\n"


@st.composite
def files(draw: st.DrawFn) -> Inputs:
    """A few files with a few clusters each."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        events = draw(st.integers(1, 60))
        inner = draw(st.sets(st.integers(1, max(1, events - 1)), max_size=8)) - {events}
        made.append(InputFile(path=f"/f{number}", events=events, clusters=tuple(sorted(inner))))
    return Inputs(format=InputFormat.LHE, files=tuple(made))


@given(files(), st.data())
def test_align_cuts_at_the_last_cluster_within_reach(inputs: Inputs, data: st.DataObject) -> None:
    """Against a plain search: the largest cut in (first, first + limit], else the limit, inside the file."""
    first = data.draw(st.integers(0, inputs.events - 1))
    limit = data.draw(st.integers(1, 80))
    start, cuts, file_end = 0, set(), None
    for file in inputs.files:
        cuts |= {start + c for c in file.clusters} | {start + file.events}
        if start <= first < start + file.events:
            file_end = start + file.events
        start += file.events
    assert file_end is not None
    reach = min(first + limit, file_end)
    within = [c for c in cuts if first < c <= reach]
    end = cut_points(inputs).align(first, limit)
    assert end == (max(within) if within else reach)
    assert first < end <= first + limit


@given(st.integers(0, 2**62), st.integers(1, 2**31))
def test_without_inputs_any_cut_is_good(first: int, limit: int) -> None:
    """A task without inputs is cut at the limit."""
    assert cut_points(None).align(first, limit) == first + limit


def test_align_refuses_events_outside() -> None:
    """An event beyond the last file has no cut."""
    inputs = Inputs(format=InputFormat.LHE, files=(InputFile(path="/a", events=3),))
    with pytest.raises(ValueError, match=r"outside the event space \[0, 3\)"):
        cut_points(inputs).align(3, 1)


def test_root_clusters(tmp_path: Path) -> None:
    """Both kinds of ROOT tables are counted and cut at their clusters."""
    path = str(tmp_path / "f.root")
    with uproot.recreate(path) as file:
        file["new"] = {"x": np.arange(10)}
        file["new"].extend({"x": np.arange(5)})
        tree = file.mktree("old", {"x": "f8"})
        for n in (4, 6, 2):
            tree.extend({"x": np.zeros(n)})
        file["text"] = "not a tree"
    assert describe(path, InputFormat.ROOT, "new") == InputFile(path=path, events=15, clusters=(10,))
    assert describe(path, InputFormat.ROOT, "old") == InputFile(path=path, events=12, clusters=(4, 10))
    with pytest.raises(InvalidValue, match="not a tree"):
        describe(path, InputFormat.ROOT, "text")


def test_hdf5_chunks(tmp_path: Path) -> None:
    """An HDF5 dataset is cut at its chunks; one without chunks anywhere."""
    path = str(tmp_path / "f.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("g/chunked", (25, 3), dtype="f4", chunks=(10, 3))
        file["plain"] = np.zeros(7)
        file["scalar"] = 1
    assert describe(path, InputFormat.HDF5, "g/chunked") == InputFile(path=path, events=25, clusters=(10, 20))
    assert describe(path, InputFormat.HDF5, "plain") == InputFile(path=path, events=7)
    for name in ("scalar", "g"):
        with pytest.raises(InvalidValue, match="not a dataset with an axis"):
            describe(path, InputFormat.HDF5, name)


def test_clusters_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more clusters than can be kept every n-th is, so that a file's description stays small."""
    monkeypatch.setattr(inputs_module, "MAX_CUTS", 4)
    path = str(tmp_path / "f.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (100,), dtype="f4", chunks=(10,))
    assert describe(path, InputFormat.HDF5, "d").clusters == (30, 60, 90)


@pytest.mark.parametrize("zipped", [False, True])
def test_lhe_events_are_counted_after_the_header(tmp_path: Path, zipped: bool) -> None:
    """Plain and gzipped files are told apart by content; tags quoted in the header do not count."""
    text = LHE.format(EVENT + EVENT.replace("<event>", '  <event npLO="1">')).encode()
    path = tmp_path / "f.lhe"
    path.write_bytes(gzip.compress(text) if zipped else text)
    assert describe(str(path), InputFormat.LHE) == InputFile(path=str(path), events=2)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken from the current folder."""
    (tmp_path / "f.lhe").write_text(LHE.format(EVENT))
    monkeypatch.chdir(tmp_path)
    assert describe("f.lhe", InputFormat.LHE).path == str(Path.cwd() / "f.lhe")


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (None, InputFormat.LHE, "no such file"),
        (b"", InputFormat.LHE, "no <init> block"),
        (LHE.format("").encode(), InputFormat.LHE, "has no entries"),
        (LHE.format(EVENT + "<event>\n").encode(), InputFormat.LHE, "2 events begin, 1 end: it is cut short"),
        (gzip.compress(LHE.format(EVENT * 99).encode(), mtime=0)[:-20], InputFormat.LHE, "cut short"),
        (
            gzip.compress(LHE.format(EVENT).encode(), mtime=0)[:12] + b"rubbish",
            InputFormat.LHE,
            "compression is broken",
        ),
        (b"PK" * 4000, InputFormat.ROOT, "not a ROOT file"),
        (b"", InputFormat.HDF5, "cannot be read as hdf5"),
    ],
)
def test_unusable_files_are_named(
    tmp_path: Path, content: bytes | None, kind: InputFormat, told: str
) -> None:
    """Each refusal names the file and what is wrong with it."""
    path = tmp_path / "broken"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidValue) as refusal:
        describe(str(path), kind, "x")
    assert told in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_missing_container_is_told_with_what_there_is(tmp_path: Path) -> None:
    """A wrong name of tree or dataset is answered with the names there are; none at all is refused."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["right"] = np.zeros(7)
    with pytest.raises(InvalidValue, match="it has no 'wrong'; it has right"):
        describe(str(tmp_path / "f.h5"), InputFormat.HDF5, "wrong")
    with pytest.raises(InvalidValue, match="need the name of a tree or dataset"):
        describe(str(tmp_path / "f.h5"), InputFormat.HDF5)
