"""The manifest beside a merged file: what is in it, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.columns import Schema
from hpcpanda.merge.plan import Plan
from hpcpanda.merge.reports import ReportsRecord

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """What came from one journal under one epoch."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    journal: str
    epoch: int
    events: IntervalSet
    ranges: int = 0
    bytes: int = 0
    segments: tuple[str, ...] = ()
    """Names of the segment files, beside the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Contents of ``OUTPUT.manifest.json``."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    format: int = FORMAT
    file: str
    output_format: OutputFormat
    digest: str
    size: int
    """Bytes of the merged file."""
    events: IntervalSet
    """The events or jobs in the file, in this order."""
    failed: IntervalSet = EMPTY
    schema: Schema
    sources: tuple[SourceRecord, ...]
    reports: ReportsRecord | None = None
    """Of a task of jobs: the file with the jobs' reports."""
    notes: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    hpcpanda: str
    """Version that merged."""


_MANIFEST = TypeAdapter(Manifest)


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output is."""
    return output.with_name(f"{output.name}.manifest.json")


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return _MANIFEST.dump_json(manifest, indent=1) + b"\n"


def load_manifest(output: Path) -> Manifest | None:
    """The manifest of an output; None when there is none that can be understood."""
    try:
        return _MANIFEST.validate_json(manifest_path(output).read_bytes())
    except (OSError, ValidationError):
        return None


def source_records(plan: Plan) -> tuple[SourceRecord, ...]:
    """What came from where."""
    count = len(plan.sources)
    ranges = np.bincount(plan.ranges.source, minlength=count).tolist()
    size = np.zeros(count, dtype=np.int64)
    np.add.at(size, plan.ranges.source, plan.ranges.length)
    segments: dict[int, set[str]] = {}
    pairs = np.unique(np.stack((plan.ranges.source, plan.ranges.segment), axis=1), axis=0)
    for source, segment in pairs.tolist():
        segments.setdefault(source, set()).add(plan.segments[segment].name)
    return tuple(
        SourceRecord(
            journal=str(source.journal),
            epoch=source.epoch,
            events=source.events,
            ranges=ranges[k],
            bytes=int(size[k]),
            segments=tuple(sorted(segments.get(k, ()))),
        )
        for k, source in enumerate(plan.sources)
    )
