"""Names of the formats of traces."""

from __future__ import annotations

from enum import StrEnum


class TraceFormat(StrEnum):
    """Formats of traces."""

    SWF = "swf"
    """Standard Workload Format."""
    ALCF = "alcf"
    """Comma-separated job log of ALCF."""
    SLURM = "slurm"
    """Export of Slurm's accounting."""
    PBS = "pbs"
    """Accounting log of PBS."""
