"""Real files of every format are counted."""

from __future__ import annotations

import pytest

from hpcpanda.domain.inputs import InputFormat
from hpcpanda.payload.inputs import describe

from .conftest import DataFile


@pytest.mark.parametrize(
    ("name", "kind", "container", "events"),
    [
        ("cms2012_dimuon.root", InputFormat.ROOT, "Events", 100_000),
        ("uproot-HZZ.root", InputFormat.ROOT, "events", 2421),
        ("pylhe-testfile-hpcgen.hdf5", InputFormat.HDF5, "events", 100),
        ("pylhe-testfile-madgraph-2.2.1-Z-mlm.lhe.gz", InputFormat.LHE, None, 10_000),
    ],
)
def test_entries_of_real_files(
    data_file: DataFile, name: str, kind: InputFormat, container: str | None, events: int
) -> None:
    """Files from CMS, the uproot and pylhe projects have the entries they are known to have."""
    described = describe(str(data_file(name)), kind, container)
    assert described.events == events
    assert described.clusters == ()
