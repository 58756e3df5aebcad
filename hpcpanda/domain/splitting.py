"""How a task is cut into jobs: what its user says, and the rule that makes boundaries of it. Pure.

What is cut is an event space, or a list of files whose entries, one file after the other, are one. A place in it, a
*position*, is the number of an event where jobs may hold parts of files, else the number of a file. Jobs are numbered
from 0 in the order of their positions; the same task is always cut alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue, TooLarge
from hpcpanda.domain.validation import MAX_EVENTS, require_between

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

MAX_STORED_JOBS = 2_000_000
"""Most jobs of a task whose boundaries follow no simple rule, and so have to be kept one by one."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSplit:
    """What a job may hold, of a task whose events or files are cut into jobs. All that is said is kept."""

    __pydantic_config__: ClassVar = _STRICT

    files_per_job: int | None = None
    """Most input files of a job; 1: one job a file."""
    events_per_job: int | None = None
    """Most events of a job. Only where this is said may a file be cut."""
    max_bytes: int | None = None
    """Most bytes of all files that a job reads of, each counted whole."""
    max_walltime_s: float | None = None
    """Longest that a job should take."""
    max_memory_mb: int | None = None
    """Most memory that a job should need, MiB."""
    max_disk_mb: int | None = None
    """Most that a job should keep in its work folder, MiB."""
    max_output_mb: int | None = None
    """Most that a job should leave as its outputs, MiB."""

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__slots__):
            raise InvalidValue("split", "says nothing; give 'files_per_job', 'events_per_job' or a limit")
        for name in ("files_per_job", "events_per_job", "max_bytes"):
            if (value := getattr(self, name)) is not None:
                require_between(f"split.{name}", value, 1, MAX_EVENTS)
        if self.max_walltime_s is not None:
            require_between("split.max_walltime_s", self.max_walltime_s, 0.1, 1e7)
        for name in ("max_memory_mb", "max_disk_mb", "max_output_mb"):
            if (value := getattr(self, name)) is not None:
                require_between(f"split.{name}", value, 1, 1_000_000_000)

    @property
    def cuts_files(self) -> bool:
        """Whether a job may hold a part of a file."""
        return self.events_per_job is not None

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the limits that only the cost of an event can be compared with."""
        names = ("max_walltime_s", "max_memory_mb", "max_disk_mb", "max_output_mb")
        return tuple(name for name in names if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFile:
    """What of a file a job is to read."""

    __pydantic_config__: ClassVar = _STRICT

    path: str
    first: int
    """First entry of the file."""
    last: int
    """Behind its last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSlice:
    """What one job of a task that was cut has to do."""

    __pydantic_config__: ClassVar = _STRICT

    job: int
    first: int
    """First event of the task's event space."""
    last: int
    """Behind its last one."""
    files: tuple[SliceFile, ...] = ()
    """In the order of their entries; none where there are only events."""


class Unit(StrEnum):
    """What a position is the number of."""

    EVENTS = "events"
    FILES = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpan:
    """A file and where it stands in what is cut."""

    ordinal: int
    first_event: int
    events: int
    path: str | None = None
    """Where it is read; None where nobody has asked, or it is not there."""
    size: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A stretch of positions that is cut by one rule."""

    unit: Unit
    first_job: int
    jobs: int
    first: int
    """First position."""
    last: int
    """Behind the last one."""
    size: int | None = None
    """Positions of each job; the last may have fewer. None: the boundaries follow no such rule, and are kept."""

    def span_of(self, job: int) -> tuple[int, int]:
        """First position of a job, and that behind its last; only where ``size`` says so."""
        assert self.size is not None, "boundaries are kept elsewhere"
        first = self.first + (job - self.first_job) * self.size
        return first, min(first + self.size, self.last)

    @property
    def end_job(self) -> int:
        """Behind the last job."""
        return self.first_job + self.jobs

    @property
    def of_pieces(self) -> bool:
        """Whether its jobs came of others that were too large: it has no positions of its own, and what each job has is
        kept one by one."""
        return self.first == self.last

    def goes_on_in(self, other: Cut) -> bool:
        """Whether another, right behind it, is cut by the same rule, as if both were one."""
        if self.of_pieces:
            return False
        if (self.unit, self.size, self.last) != (other.unit, other.size, other.first):
            return False
        return self.size is None or self.jobs * self.size == self.last - self.first


def by_size(unit: Unit, *, first_job: int, first: int, last: int, size: int) -> Cut:
    """Every job has ``size`` positions, the last one what is left."""
    jobs = -(-(last - first) // size)
    return Cut(unit=unit, first_job=first_job, jobs=jobs, first=first, last=last, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a job may hold at most, in figures that a file can be compared with; None: any number."""

    files: int | None = None
    events: int | None = None
    bytes: int | None = None

    def size_in(self, unit: Unit, *, of_files: bool) -> int | None:
        """Positions of each job, where that alone keeps the caps; None where files have to be looked at.

        Args:
            unit: of positions.
            of_files: there are files, not only events.
        """
        if unit is Unit.EVENTS and (not of_files or (self.files is None and self.bytes is None)):
            return self.events
        if unit is Unit.FILES and self.events is None and self.bytes is None:
            return self.files
        return None


@dataclass(slots=True, kw_only=True)
class Greedy:
    """Cuts files in their order, told one after the other: each job gets as much as it may hold.

    A file that holds more than a job may is a job of its own where it may not be cut.
    """

    caps: Caps
    unit: Unit
    position: int
    """Where the cut begins; entries before it belong to others."""
    bounds: list[int]
    """First position of each job so far."""
    most_events: int = 0
    """Events of the largest job."""
    oversized: int = 0
    """Files that are jobs of their own, since they hold more than a job may."""
    _files: int = 0
    _events: int = 0
    _bytes: int = 0

    @classmethod
    def beginning(cls, caps: Caps, unit: Unit, position: int) -> Greedy:
        """Before the first file."""
        return cls(caps=caps, unit=unit, position=position, bounds=[])

    def add(self, file: FileSpan) -> None:
        """Cut the next file.

        Raises:
            InvalidValue: its size is needed and not known, or is more than a job may read.
            TooLarge: it makes more jobs than can be kept.
        """
        size = self._size_of(file)
        if self.unit is Unit.FILES:
            if file.ordinal >= self.position:
                self._put(file.ordinal, file.events, size)
        else:
            self._put_parts(file, size)

    @property
    def whole(self) -> bool:
        """Whether the last job holds all that it may, whatever follows."""
        return not self._fits(1, 0)

    def _size_of(self, file: FileSpan) -> int:
        if self.caps.bytes is None:
            return 0
        if file.size is None:
            raise InvalidValue(
                "split.max_bytes", f"needs the size of every file, and that of {_name(file)} is not known"
            )
        if file.size > self.caps.bytes:
            raise InvalidValue(
                "split.max_bytes",
                f"is less than the {file.size} bytes of {_name(file)}; allow at least those",
            )
        return file.size

    def _put(self, position: int, events: int, size: int) -> None:
        """A whole file."""
        if not self.bounds or not self._fits(events, size):
            self._begin(position)
            self.oversized += self.caps.events is not None and events > self.caps.events
        self._hold(events, size)

    def _put_parts(self, file: FileSpan, size: int) -> None:
        """A file that may be cut."""
        assert self.caps.events is not None, "only events a job allow to cut files"
        end, at = file.first_event + file.events, max(file.first_event, self.position)
        is_held = False
        while at < end:
            if not self.bounds or not (is_held or self._fits(1, size)) or self._events >= self.caps.events:
                self._begin(at)
                is_held = False
            count = min(end - at, self.caps.events - self._events)
            self._hold(count, 0 if is_held else size, files=0 if is_held else 1)
            is_held = True
            at += count

    def _fits(self, events: int, size: int) -> bool:
        caps = self.caps
        return (
            (caps.files is None or self._files < caps.files)
            and (caps.events is None or self._events + events <= caps.events)
            and (caps.bytes is None or self._bytes + size <= caps.bytes)
        )

    def _begin(self, position: int) -> None:
        if len(self.bounds) == MAX_STORED_JOBS:
            raise TooLarge(
                f"split: it makes more than {MAX_STORED_JOBS:,} jobs; let each job hold more, or submit several tasks"
            )
        self.bounds.append(position)
        self._files = self._events = self._bytes = 0

    def _hold(self, events: int, size: int, files: int = 1) -> None:
        self._files += files
        self._events += events
        self._bytes += size
        self.most_events = max(self.most_events, self._events)


def _name(file: FileSpan) -> str:
    return file.path or f"file {file.ordinal} of the dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one job holds."""

    job: int
    first: int
    """First event."""
    last: int
    """Behind the last one."""
    files: Sequence[FileSpan]
    """All files that it reads of, in order; none where there are only events."""

    @classmethod
    def of(cls, job: int, unit: Unit, span: tuple[int, int], files: Sequence[FileSpan]) -> Piece:
        """The job with these positions, and just the files that it reads of."""
        first, last = span
        if unit is Unit.FILES:
            first, last = files[0].first_event, files[-1].first_event + files[-1].events
        return cls(job=job, first=first, last=last, files=files)

    @property
    def is_here(self) -> bool:
        """Whether all of its files can be read where it was asked for."""
        return all(file.path is not None for file in self.files)

    def told(self) -> JobSlice:
        """What the job is told. Expects that its files can be read."""
        parts = [self._part(file) for file in self.files]
        return JobSlice(job=self.job, first=self.first, last=self.last, files=tuple(parts))

    def _part(self, file: FileSpan) -> SliceFile:
        assert file.path is not None, "the file is not there"
        return SliceFile(
            path=file.path,
            first=max(self.first - file.first_event, 0),
            last=min(self.last - file.first_event, file.events),
        )
