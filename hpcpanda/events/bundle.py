"""The output of one job as bytes of a segment: a bundle. Format 1.

::

    magic "HPBUNDL1" | uint32 length of the head, little-endian | head (JSON) | bytes of the files, one after the other

The head is a :class:`BundleHead`: the job's report, and name and size of every file, in the order of their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import ValidationError

from hpcpanda.domain.errors import CorruptData
from hpcpanda.events.adapter import Adapter
from hpcpanda.events.columns import Buffer

MAGIC: Final = b"HPBUNDL1"
_LEAD: Final = struct.Struct("<8sI")
LEAD_BYTES: Final = _LEAD.size
"""Bytes in front of the head."""
_MAX_HEAD: Final = 1 << 24
_NAME_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a job's run was like."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    job: int
    attempt: int
    """1 for the first."""
    host: str
    exit_status: int | None
    """None when a signal ended it, or it never ran."""
    signal: int | None = None
    started: float
    """Unix seconds."""
    wall_s: float
    cpu_s: float
    """User and system seconds of all its processes that were seen to end or run."""
    max_rss_mb: float
    """Highest resident memory of its process tree that was seen, MiB."""
    read_mb: float = 0.0
    """Read from storage, as the kernel counts; MiB."""
    written_mb: float = 0.0
    disk_mb: float = 0.0
    """Most that was seen in its work folder, MiB."""
    error: str | None = None
    """Why it failed, for its user; None when it succeeded."""
    stdout_tail: str = ""
    stderr_tail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """A file of a bundle."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleHead:
    """What a bundle begins with."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    report: JobReport
    files: tuple[BundleFile, ...] = ()


_HEAD: Adapter[BundleHead] = Adapter(BundleHead)


def bundle(report: JobReport, files: Sequence[tuple[str, Buffer]]) -> list[Buffer]:
    """The bytes of a bundle, to be written one after the other."""
    entries = tuple(BundleFile(name=name, size=len(data)) for name, data in files)
    head = _HEAD.dump_json(BundleHead(report=report, files=entries))
    return [_LEAD.pack(MAGIC, len(head)) + head, *(data for _, data in files)]


def check_head(head: BundleHead, *, job: int, size: int) -> None:
    """What a head says of its bundle is true.

    Args:
        head: of the bundle.
        job: whose bundle it should be.
        size: bytes behind the head.

    Raises:
        CorruptData: it is another job's, the sizes of its files do not add up, or a file is named twice.
    """
    if head.report.job != job:
        raise CorruptData(f"the bundle of job {head.report.job} stands where that of job {job} should be")
    if any(file.size < 0 for file in head.files) or sum(file.size for file in head.files) != size:
        raise CorruptData(f"the sizes of the files in a bundle do not add up to its {size} bytes")
    names = [file.name for file in head.files]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CorruptData(f"a bundle has two files named {_shorten(twice)}")


def _shorten(name: str) -> str:
    return repr(name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "...")


def head_length(lead: bytes) -> int:
    """Length of the head, from the first :data:`LEAD_BYTES` bytes.

    Raises:
        CorruptData: it is no bundle.
    """
    if len(lead) < LEAD_BYTES:
        raise CorruptData("not a bundle: it is too short")
    magic, length = _LEAD.unpack_from(lead)
    if magic != MAGIC or length > _MAX_HEAD:
        raise CorruptData("not a bundle: it does not begin with the bundle magic")
    return int(length)


def read_head(head: bytes) -> BundleHead:
    """The head from its bytes.

    Raises:
        CorruptData: they are not a head.
    """
    try:
        return _HEAD.validate_json(head)
    except ValidationError as problem:
        raise CorruptData(f"the head of a bundle cannot be understood: {problem}") from problem
