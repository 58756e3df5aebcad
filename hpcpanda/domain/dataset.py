"""Datasets: named lists of files with their events, and where copies of the files are. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from hpcpanda.domain.did import Did, require_did, require_scope
from hpcpanda.domain.errors import Conflict, InvalidValue
from hpcpanda.domain.inputs import require_checksum, require_clusters
from hpcpanda.domain.validation import MAX_EVENTS, require_between, require_name, require_path

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

_DIGEST = re.compile(r"[A-Za-z0-9:._-]{1,80}")

MAX_FILES = 10_000
"""Most files in one call."""
MAX_REPLICAS = 100
"""Most copies of a file told of in one call."""
MAX_COPIES = 50_000
MAX_SITES = 100
"""Most copies, and most sites at which they are, in one call."""
MAX_CLUSTERS = 1000
"""Most entry numbers of one file at which reading may start cheaply."""
MAX_META = 32
MAX_META_KEY = 64
MAX_META_VALUE = 1000
"""Bounds of free facts."""

Fact = str | int | float | bool
"""A free fact about a dataset or a file."""


def require_meta(field: str, meta: Mapping[str, Fact]) -> None:
    """Accept some dozens of short facts."""
    if len(meta) > MAX_META:
        raise InvalidValue(field, f"more than {MAX_META} facts")
    for key, value in meta.items():
        if not 0 < len(key) <= MAX_META_KEY:
            raise InvalidValue(
                field, f"{key[:MAX_META_KEY]!r}: use 1-{MAX_META_KEY} characters to name a fact"
            )
        if len(str(value)) > MAX_META_VALUE:
            raise InvalidValue(field, f"{key!r} is longer than {MAX_META_VALUE} characters")
        if "\0" in key or "\0" in str(value):
            raise InvalidValue(field, f"{key!r} holds a NUL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A copy of a file."""

    __pydantic_config__: ClassVar = _STRICT

    site: str
    """Name of the site, as its edge is called."""
    path: str
    """Absolute path on the site's file system."""

    def __post_init__(self) -> None:
        require_name("replicas.site", self.site)
        require_path("replicas.path", self.path)
        if not self.path.startswith("/"):
            raise InvalidValue("replicas.path", f"{self.path[:140]!r} is not absolute")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """A file of a dataset."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """Unique in its dataset."""
    events: int
    """Entries in the file."""
    size: int
    """Bytes of the file."""
    checksum: str | None = None
    """``adler32:`` and 8, or ``sha256:`` and 64 hexadecimal digits: of the file."""
    digest: str | None = None
    """Of the content, of a file that a task has merged; as its manifest has it."""
    clusters: tuple[int, ...] = ()
    """Entry numbers at which reading may start cheaply, increasing, without 0 and the end; at most 1000."""
    meta: dict[str, Fact] = field(default_factory=dict)
    """Free facts, at most 32."""
    replicas: tuple[Replica, ...] = ()
    """Where copies are, one a site."""

    def __post_init__(self) -> None:
        require_did("files.name", self.name)
        require_between("files.events", self.events, 1, MAX_EVENTS)
        require_between("files.size", self.size, 0, MAX_EVENTS)
        require_checksum("files.checksum", self.checksum)
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            raise InvalidValue(
                "files.digest", "is no digest; use at most 80 letters, digits, ':', '.', '_' or '-'"
            )
        require_clusters("files.clusters", self.clusters, self.events)
        if len(self.clusters) > MAX_CLUSTERS:
            raise InvalidValue(
                "files.clusters", f"more than {MAX_CLUSTERS} of {self.name}; leave out every other"
            )
        require_meta("files.meta", self.meta)
        if len(self.replicas) > MAX_REPLICAS:
            raise InvalidValue("files.replicas", f"more than {MAX_REPLICAS} of {self.name}")
        if len({r.site for r in self.replicas}) < len(self.replicas):
            raise InvalidValue("files.replicas", f"{self.name} has two at one site; say one of them")

    def difference(self, other: DatasetFile) -> str | None:
        """What says that the other is not the same file; None when nothing does. Facts that one of them lacks, and where
        copies are, say nothing."""
        for name in ("events", "size", "checksum", "digest"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and _plain(mine) != _plain(theirs):
                return f"{name} {mine} here, {theirs} there"
        return None


def _plain(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFile:
    """A file in its place in a dataset."""

    __pydantic_config__: ClassVar = _STRICT

    ordinal: int
    """Its place, from 0."""
    first: int
    """Event of the dataset that its first entry is: the entries of all files before it."""
    file: DatasetFile
    task_id: int | None = None
    """The task that has made it."""

    @property
    def last(self) -> int:
        """The event after its last entry."""
        return self.first + self.file.events


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteShare:
    """How much of a dataset is at a site."""

    __pydantic_config__: ClassVar = _STRICT

    site: str
    files: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """A task that writes, or has written, files of a dataset."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    spec_digest: str
    """``sha256:`` of the task's specification, as the dispatcher stores it."""
    source: str | None = None
    """The dataset that the task reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named list of files, which is only ever added to."""

    __pydantic_config__: ClassVar = _STRICT

    scope: str
    name: str
    owner: str
    open: bool
    """Files may still come."""
    files: int
    events: int
    """Entries of all files together."""
    size: int
    """Bytes of all files together."""
    meta: dict[str, Fact] = field(default_factory=dict)
    created: float = 0.0
    """Unix seconds."""
    updated: float = 0.0
    """Unix seconds of the last file added, or of its closing."""
    sites: tuple[SiteShare, ...] = ()
    """Where its files are; told when one dataset is looked at."""
    provenance: tuple[Provenance, ...] = ()
    """Tasks that write it, newest first, at most 100; told when one dataset is looked at."""

    @property
    def did(self) -> str:
        """Its ``scope:name``."""
        return f"{self.scope}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDataset:
    """A dataset that is to be made."""

    __pydantic_config__: ClassVar = _STRICT

    scope: str
    name: str
    meta: dict[str, Fact] = field(default_factory=dict)
    """Free facts, at most 32."""

    def __post_init__(self) -> None:
        require_scope("scope", self.scope)
        require_did("name", self.name)
        require_meta("meta", self.meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFiles:
    """Files that are to be added to a dataset, in this order."""

    __pydantic_config__: ClassVar = _STRICT

    files: tuple[DatasetFile, ...]

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise InvalidValue("files", f"more than {MAX_FILES} in one call; send several")
        sites = [replica.site for file in self.files for replica in file.replicas]
        if len(sites) > MAX_COPIES or len(set(sites)) > MAX_SITES:
            raise InvalidValue(
                "files.replicas",
                f"more than {MAX_COPIES} or at more than {MAX_SITES} sites in one call; send several",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What has come of adding files."""

    __pydantic_config__: ClassVar = _STRICT

    added: int
    """Files that were not there before."""
    known: int
    """Files that were."""
    dataset: Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPage:
    """One page of a listing, newest first."""

    __pydantic_config__: ClassVar = _STRICT

    datasets: tuple[Dataset, ...]
    next_after: int | None = None
    """Pass as ``after`` for the next page; None on the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """One page of a dataset's files, in order."""

    __pydantic_config__: ClassVar = _STRICT

    files: tuple[PlacedFile, ...]
    next_after: int | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """What adding files changes."""

    new: tuple[PlacedFile, ...]
    """In their places, behind those that are there."""
    copies: tuple[tuple[int, int, Replica], ...]
    """Copies of files that were there: ordinal, bytes of the file, where."""
    known: int
    """Files that were there."""


def grow(
    did: Did, files: tuple[DatasetFile, ...], known: Mapping[str, PlacedFile], *, count: int, events: int
) -> Growth:
    """Place files behind those of a dataset.

    Args:
        did: the dataset.
        files: to be added, in order.
        known: those files of the dataset that have one of these names.
        count: files of the dataset.
        events: its events.

    Raises:
        Conflict: a file of one of these names is there, and is another.
        InvalidValue: more events than can be counted.
    """
    seen = dict(known)
    new: list[PlacedFile] = []
    copies: list[tuple[int, int, Replica]] = []
    for file in files:
        there = seen.get(file.name)
        if there is not None:
            difference = file.difference(there.file)
            if difference is not None:
                raise Conflict(
                    f"{did} has another file {file.name}: {difference}; give the new one another name"
                )
            copies += [(there.ordinal, there.file.size, r) for r in file.replicas]
            continue
        placed = PlacedFile(ordinal=count, first=events, file=file)
        seen[file.name] = placed
        new.append(placed)
        count, events = count + 1, events + file.events
    if events > MAX_EVENTS:
        raise InvalidValue("files.events", f"{did} would have more than {MAX_EVENTS} events")
    return Growth(tuple(new), tuple(copies), len(files) - len(new))
