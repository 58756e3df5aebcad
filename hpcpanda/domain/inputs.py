"""Input files whose entries are a task's event space."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar, Literal

from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import MAX_EVENTS, require_between, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}
_CHECKSUM = re.compile(r"adler32:[0-9a-fA-F]{8}|sha256:[0-9a-fA-F]{64}")


def require_path(field: str, value: str) -> None:
    """Accept an absolute path."""
    if not value.startswith("/") or "\0" in value:
        raise InvalidValue(field, f"{value!r} is not an absolute path")


def require_clusters(field: str, clusters: tuple[int, ...], events: int) -> None:
    """Accept increasing entry numbers inside a file of so many entries."""
    if any(a >= b for a, b in pairwise((0, *clusters, events))):
        raise InvalidValue(field, "must be increasing and inside the file")


def require_checksum(field: str, value: str | None) -> None:
    """Accept none, or one of a known kind."""
    if value is not None and not _CHECKSUM.fullmatch(value):
        raise InvalidValue(
            field, f"{value!r} is neither 'adler32:' with 8 nor 'sha256:' with 64 hexadecimal digits"
        )


class InputFormat(StrEnum):
    """File formats whose entries can be an event space."""

    ROOT = "root"
    HDF5 = "hdf5"
    LHE = "lhe"
    FILE = "file"
    """Any file at all; the whole of it counts as one entry."""

    @property
    def in_containers(self) -> bool:
        """Whether entries are in a tree or dataset of a file that has to be named."""
        return self in (InputFormat.ROOT, InputFormat.HDF5)


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

    first: int | None = None
    """Event number of its first entry; where the file before ends, unless said. Told with files of a dataset, of which
    only those are listed that are needed."""

    def __post_init__(self) -> None:
        require_path("inputs.files.path", self.path)
        require_between("inputs.files.events", self.events, 1, MAX_EVENTS)
        require_clusters("inputs.files.clusters", self.clusters, self.events)
        if self.size is not None:
            require_between("inputs.files.size", self.size, 1, MAX_EVENTS)
        require_checksum("inputs.files.checksum", self.checksum)
        if self.first is not None:
            require_between("inputs.files.first", self.first, 0, MAX_EVENTS - self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Input files; their entries, one file after the other, are the event space."""

    __pydantic_config__: ClassVar = _STRICT

    format: InputFormat
    files: tuple[InputFile, ...] = ()
    dataset: str | None = None
    """``scope:name`` of a dataset whose files are read, in the place of ``files``. An edge is told, with the events that it
    is given, those of the files that they are in."""
    grows: bool = False
    """The dataset may be open still: its files are read as they come, and the task is complete when it is closed."""
    if_abandoned: Literal["wait", "finish", "fail"] = "wait"
    """What becomes of such a task when all tasks that write the dataset have ended and it is open still, since one of them
    failed or was aborted: it waits until that is tried again or the dataset is closed, finishes with what is there, or
    fails."""
    listing: str | None = None
    """Set by edges: a file that lists the files of events that are handed out later."""
    container: str | None = None
    """ROOT: name of the tree. HDF5: name of the dataset whose length counts entries. Others: not used."""

    def __post_init__(self) -> None:
        if self.dataset is None:
            require_nonempty("inputs.files", self.files)
        else:
            Did.parse(self.dataset, "inputs.dataset")
        if self.listing is not None and self.dataset is None:
            raise InvalidValue("inputs.listing", "is set by edges, for a dataset; leave it out")
        if self.grows and self.dataset is None:
            raise InvalidValue("inputs.grows", "is for a dataset; name it as 'inputs.dataset'")
        if self.if_abandoned != "wait" and not self.grows:
            raise InvalidValue("inputs.if_abandoned", "is for a dataset that grows; say 'inputs.grows', too")
        end = 0
        for file, start in zip(self.files, self.starts, strict=True):
            if start < end or (self.dataset is None and start > end):
                raise InvalidValue(
                    "inputs.files.first", f"{start} of {file.path!r}: the file before ends at {end}"
                )
            end = start + file.events
        if self.format.in_containers and not self.container:
            raise InvalidValue(
                "inputs.container",
                f"{self.format} files need the name of a tree or dataset; if whole files are meant, "
                "say format = 'file'",
            )

    @property
    def starts(self) -> tuple[int, ...]:
        """Event number of the first entry of each file."""
        found: list[int] = []
        end = 0
        for file in self.files:
            start = end if file.first is None else file.first
            found.append(start)
            end = start + file.events
        return tuple(found)

    @property
    def events(self) -> int:
        """Entries of all files listed together."""
        return sum(f.events for f in self.files)
