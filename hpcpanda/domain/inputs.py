"""Input files whose entries are a task's event space."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import MAX_EVENTS, require_between, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}
_CHECKSUM = re.compile(r"adler32:[0-9a-fA-F]{8}|sha256:[0-9a-fA-F]{64}")


class InputFormat(StrEnum):
    """File formats whose entries can be an event space."""

    ROOT = "root"
    HDF5 = "hdf5"
    LHE = "lhe"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One input file and its share of the event space."""

    __pydantic_config__: ClassVar = _STRICT

    path: str
    """Absolute path on the site's file system."""
    events: int
    """Entries in the file; counted at submission."""
    clusters: tuple[int, ...] = ()
    """Entry numbers at which reading may start cheaply, increasing, without 0 and the end."""
    size: int | None = None
    """Bytes of the file; tested when it is copied by staging."""
    checksum: str | None = None
    """``adler32:`` and 8, or ``sha256:`` and 64 hexadecimal digits; tested when the file is copied by staging."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or "\0" in self.path:
            raise InvalidValue("inputs.files.path", f"{self.path!r} is not an absolute path")
        require_between("inputs.files.events", self.events, 1, MAX_EVENTS)
        cuts = (0, *self.clusters, self.events)
        if any(a >= b for a, b in pairwise(cuts)):
            raise InvalidValue("inputs.files.clusters", "must be increasing and inside the file")
        if self.size is not None:
            require_between("inputs.files.size", self.size, 1, MAX_EVENTS)
        if self.checksum is not None and not _CHECKSUM.fullmatch(self.checksum):
            raise InvalidValue(
                "inputs.files.checksum",
                f"{self.checksum!r} is neither 'adler32:' with 8 nor 'sha256:' with 64 hexadecimal digits",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Input files; their entries, one file after the other, are the event space."""

    __pydantic_config__: ClassVar = _STRICT

    format: InputFormat
    files: tuple[InputFile, ...]
    container: str | None = None
    """ROOT: name of the tree. HDF5: name of the dataset whose length counts entries. LHE: not used."""

    def __post_init__(self) -> None:
        require_nonempty("inputs.files", self.files)
        if self.format is not InputFormat.LHE and not self.container:
            raise InvalidValue("inputs.container", f"{self.format} files need the name of a tree or dataset")

    @property
    def events(self) -> int:
        """Entries of all files together."""
        return sum(f.events for f in self.files)
