"""Files at hand as files of a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpanda.client.local_files import Checksum, describe_file, require_names
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFormat


def test_two_files_of_one_name_are_refused() -> None:
    """A dataset knows files by their names: the second would be taken for a copy of the first, and lost without a word."""
    require_names([Path("/a/x.root"), Path("/a/y.root"), Path("/a/x.root")])
    with pytest.raises(InvalidValue, match=r"/a/x\.root and /b/x\.root have the same name"):
        require_names([Path("/a/x.root"), Path("/a/y.root"), Path("/b/x.root")])


def test_any_file_can_be_in_a_dataset(tmp_path: Path) -> None:
    """It is one entry, whatever is in it, and has its size and checksum."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"Wikipedia")
    found = describe_file(path, site="here", kind=InputFormat.FILE, container=None, checksum=Checksum.ADLER32)
    assert (found.name, found.events, found.size) == ("notes.txt", 1, 9)
    assert found.checksum == "adler32:11e60398"
