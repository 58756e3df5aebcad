"""Files of a dataset: those that are known, and those that are listed while workers run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.payload import listing as listing_module
from hpcpanda.payload.inputs import CutPoints
from hpcpanda.payload.listing import LISTING, FileTable, InputFolders
from hpcpanda.payload.work import InputSlice, InputTable


def file(first: int, events: int = 10, clusters: tuple[int, ...] = ()) -> InputFile:
    return InputFile(path=f"/f{first}", events=events, first=first, clusters=clusters)


def inputs(*files: InputFile, listing: Path | None = None) -> Inputs:
    return Inputs(format=InputFormat.LHE, dataset="s:data", files=files, listing=listing and str(listing))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.data())
def test_a_part_of_the_files_is_cut_as_all_of_them(sizes: list[int], data: st.DataObject) -> None:
    """Ends of ranges and slices of files do not depend on which other files are known."""
    files: list[InputFile] = []
    for number, events in enumerate(sizes):
        inner = data.draw(st.sets(st.integers(1, max(1, events - 1)), max_size=4)) - {events}
        start = sum(sizes[:number])
        files.append(InputFile(path=f"/f{number}", events=events, first=start, clusters=tuple(sorted(inner))))
    known = data.draw(st.lists(st.sampled_from(files), min_size=1, unique=True))
    part = inputs(*sorted(known, key=lambda f: f.first or 0))
    here = data.draw(st.sampled_from(known))
    assert here.first is not None
    first = data.draw(st.integers(here.first, here.first + here.events - 1))
    limit = data.draw(st.integers(1, 30))
    end = CutPoints(inputs(*files)).align(first, limit)
    assert CutPoints(part).align(first, limit) == end
    assert InputTable(part).slices(first, end) == InputTable(inputs(*files)).slices(first, end)


def test_a_range_may_span_files_that_are_known() -> None:
    """Its slices carry the numbers of the whole dataset."""
    table = InputTable(inputs(file(20), file(30)))
    assert table.slices(25, 33) == (InputSlice("/f20", 5, 10, 20), InputSlice("/f30", 0, 3, 30))


def test_events_outside_are_refused() -> None:
    """Before, between and behind the files, when there is no list to look into."""
    table = FileTable(inputs(file(20), file(40)))
    for event in (0, 19, 30, 39, 50):
        with pytest.raises(ValueError, match=f"event {event} is outside"):
            table.find(event)


def test_files_listed_later_are_found(tmp_path: Path) -> None:
    """A worker that meets an event of a file it does not know reads the list again, and forgets none that it knew."""
    path = tmp_path / "files.json"
    cuts = CutPoints(inputs(file(0), listing=path))
    table = InputTable(inputs(file(0), listing=path))
    path.write_bytes(LISTING.dump_json((file(10, clusters=(4,)), file(50))))
    assert cuts.align(10, 6) == 14
    assert table.slices(52, 54) == (InputSlice("/f50", 2, 4, 50),)
    path.write_bytes(LISTING.dump_json((file(70),)))
    assert table.slices(72, 73) == (InputSlice("/f70", 2, 3, 70),)
    assert [table.slices(e, e + 1)[0].path for e in (3, 12, 55)] == ["/f0", "/f10", "/f50"]


def test_a_list_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    """Shared file systems show new files after a while."""
    path = tmp_path / "files.json"

    def write() -> None:
        time.sleep(0.4)
        whole = path.with_suffix(".new")
        whole.write_bytes(LISTING.dump_json((file(10),)))
        whole.rename(path)

    late = threading.Thread(target=write)
    late.start()
    assert InputTable(inputs(file(0), listing=path)).slices(10, 11)[0].path == "/f10"
    late.join()


def test_a_file_that_is_never_listed_fails_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The range fails with a sentence; the worker lives, since cutting the range has no opinion."""
    monkeypatch.setattr(listing_module, "PATIENCE_S", 0.1)
    path = tmp_path / "files.json"
    for content, problem in ((None, "cannot be read"), (b"{", "cannot be read"), (b"[]", "lists no file")):
        if content is not None:
            path.write_bytes(content)
        given_inputs = inputs(file(0), listing=path)
        assert CutPoints(given_inputs).align(10, 6) == 11
        with pytest.raises(PayloadFailed, match=problem):
            InputTable(given_inputs).slices(10, 11)


def test_folders_of_files_listed_later_are_known(tmp_path: Path) -> None:
    """A container that is started for a range sees the files of that range, wherever they are; of a list that cannot be
    read nothing new is known."""
    path = tmp_path / "files.json"
    folders = InputFolders(inputs(InputFile(path="/a/f0", events=1, first=0), listing=path))
    assert folders.now() == ("/a",)
    path.write_bytes(LISTING.dump_json((InputFile(path="/b/f1", events=1, first=1),)))
    assert folders.now() == ("/a", "/b")
    path.write_bytes(b"{")
    assert folders.now() == ("/a", "/b")
    assert InputFolders(None).now() == ()
    assert InputFolders(inputs(file(0))).now() == ("/",)
