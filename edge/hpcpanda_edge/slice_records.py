"""The row of the edge's memory that has the jobs of a lease, of a task that was cut into jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hpcpanda.domain.splitting import JobSlice


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicesRecord:
    """What the jobs of a lease have to do."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    task_id: int
    epoch: int
    slices: tuple[JobSlice, ...]

    @property
    def key(self) -> tuple[int, int]:
        """Names the lease."""
        return self.task_id, self.epoch
