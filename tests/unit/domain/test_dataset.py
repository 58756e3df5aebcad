"""Datasets: names, files, and how files are placed behind each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.dataset import (
    MAX_CLUSTERS,
    MAX_FILES,
    MAX_META,
    DatasetFile,
    NewDataset,
    NewFiles,
    PlacedFile,
    Replica,
    grow,
)
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import Conflict, InvalidValue
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.validation import MAX_EVENTS

DID = Did("s", "data")


def made(name: str = "f0", events: int = 10, **fields: Any) -> DatasetFile:
    return DatasetFile(**{"name": name, "events": events, "size": 1} | fields)


@pytest.mark.parametrize(
    "text", ["user.ada:data.v1", "mc23_13p6TeV:mc23.601237.Py8", "_x:ab", "s:" + "a" * 250]
)
def test_names_that_are_names(text: str) -> None:
    """A name is taken apart and put together again."""
    assert str(Did.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "data",
            "",
            ":",
            "s:",
            ":name",
            "a:b",
            "s:-ab",
            "s:.ab",
            "..:name",
            ".:name",
            "-s:name",
            "s:a/b",
            "s:a b",
        ),
        *("s:a:b", "s\n:ab", "s:ab\n", "s:äb", "s:a'b", "s:" + "a" * 251, "a" * 26 + ":name", "s:ab\0"),
    ],
)
def test_names_that_are_none(text: str) -> None:
    """Nothing that would mean something in an address, a shell or a statement is a name; the message names the field."""
    with pytest.raises(InvalidValue, match=r"^inputs\.dataset: "):
        Did.parse(text, "inputs.dataset")
    with pytest.raises(InvalidValue, match=r"^inputs\.dataset: "):
        Inputs(format=InputFormat.LHE, dataset=text)
    with pytest.raises(InvalidValue, match=r"^output\.dataset: "):
        Output(file="o", dataset=text)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a/b"},
        {"events": 0},
        {"events": MAX_EVENTS + 1},
        {"size": -1},
        {"checksum": "md5:abc"},
        {"digest": "sha256 abc"},
        {"clusters": (5, 5)},
        {"clusters": (10,)},
        {"events": 10**6, "clusters": tuple(range(1, MAX_CLUSTERS + 2))},
        {"meta": {"k" * 65: 1}},
        {"meta": {"": 1}},
        {"meta": {"k": "v" * 1001}},
        {"meta": {"k": "\0"}},
        {"meta": {str(n): n for n in range(MAX_META + 1)}},
        {"replicas": (Replica(site="a", path="/x"), Replica(site="a", path="/y"))},
    ],
    ids=",".join,
)
def test_files_that_are_none(fields: dict[str, Any]) -> None:
    """What is out of bounds is refused."""
    with pytest.raises(InvalidValue):
        made(**fields)


@pytest.mark.parametrize(
    ("site", "path"), [("a b", "/x"), ("a", "x"), ("a", "/x\n"), ("a", "/\0"), ("a", "/" + "x" * 5000)]
)
def test_copies_that_are_none(site: str, path: str) -> None:
    """A copy is at a named site under an absolute path of one line."""
    with pytest.raises(InvalidValue, match="replicas"):
        Replica(site=site, path=path)


def test_a_call_is_bounded() -> None:
    """By files, and by the sites of their copies."""
    with pytest.raises(InvalidValue, match="more than 10000 in one call"):
        NewFiles(files=(made(),) * (MAX_FILES + 1))
    far = tuple(made(f"f{n}", replicas=(Replica(site=f"s{n}", path="/x"),)) for n in range(101))
    with pytest.raises(InvalidValue, match="100 sites"):
        NewFiles(files=far)
    with pytest.raises(InvalidValue, match="meta"):
        NewDataset(scope="s", name="data", meta={"k": "v" * 1001})


@given(
    st.lists(
        st.tuples(st.sampled_from(["aa", "bb", "cc", "dd", "ee", "ff"]), st.integers(1, 9)), max_size=30
    ),
    st.integers(0, 30),
)
def test_every_name_has_one_place(told: list[tuple[str, int]], cut: int) -> None:
    """Added in one call or in two, twice or once: each name is placed once, each file begins where the one before ends, or
    the whole call is refused since a name stands for two files."""
    files = tuple(made(name, events) for name, events in told)
    sizes: dict[str, int] = {}
    clash = any(sizes.setdefault(name, events) != events for name, events in told)
    known: dict[str, PlacedFile] = {}
    try:
        for part in (files[:cut], files[cut:], files):
            count, events = len(known), sum(p.file.events for p in known.values())
            growth = grow(DID, part, known, count=count, events=events)
            assert len(growth.new) + growth.known == len(part)
            known |= {placed.file.name: placed for placed in growth.new}
    except Conflict:
        assert clash
        return
    assert not clash
    placed = sorted(known.values(), key=lambda p: p.ordinal)
    assert [p.ordinal for p in placed] == list(range(len(sizes)))
    assert [p.first for p in placed] == [0, *(p.last for p in placed)][: len(placed)]
    assert {p.file.name: p.file.events for p in placed} == sizes


def test_what_one_does_not_know_is_no_difference() -> None:
    """A file told of with a checksum is the same file told of without; letters of checksums may be large."""
    bare, full = made(), made(checksum="adler32:0000000a")
    assert bare.difference(full) is None
    assert (
        full.difference(made(checksum="adler32:0000000A", replicas=(Replica(site="a", path="/x"),))) is None
    )
    assert (
        full.difference(made(checksum="adler32:0000000b"))
        == "checksum adler32:0000000a here, adler32:0000000b there"
    )
    assert bare.difference(made(size=2)) == "size 1 here, 2 there"


def test_events_can_be_counted() -> None:
    """More than can be counted are refused."""
    with pytest.raises(InvalidValue, match="would have more than"):
        grow(DID, (made(events=MAX_EVENTS), made("f1")), {}, count=0, events=0)


def test_inputs_may_have_gaps_only_where_a_dataset_fills_them() -> None:
    """Files named one by one lie one behind the other; those of a dataset in its order."""
    a, b = InputFile(path="/a", events=5, first=0), InputFile(path="/b", events=5, first=10)
    sparse = Inputs(format=InputFormat.LHE, dataset="s:data", files=(a, b))
    assert (sparse.starts, sparse.events) == ((0, 10), 10)
    assert Inputs(format=InputFormat.LHE, dataset="s:data").starts == ()
    for files in ((a, b), (b,), (InputFile(path="/a", events=5, first=3),)):
        with pytest.raises(InvalidValue, match="first"):
            Inputs(format=InputFormat.LHE, files=files)
    with pytest.raises(InvalidValue, match="ends at 15"):
        Inputs(format=InputFormat.LHE, dataset="s:data", files=(b, a))
    with pytest.raises(InvalidValue, match=r"inputs\.listing: is set by edges"):
        Inputs(format=InputFormat.LHE, files=(replace(a, first=None),), listing="/etc/passwd")
