"""Jobs that were too large go on as two smaller ones. Pure.

A job of a task that was cut has positions ``[first, last)``. It keeps the first half of them and its number; the second
half becomes a job of its own, behind all others. So every position is in one job at any time, and pieces of pieces are
made alike, until there is one position only.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.domain.splitting import Unit

HOUR = 3600.0
MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """What becomes of the positions of one job."""

    job: int
    unit: Unit
    """What a position is the number of."""
    first: int
    middle: int
    """The job keeps what is before; another gets the rest."""
    last: int

    @classmethod
    def of(cls, job: int, unit: Unit, span: tuple[int, int]) -> Halves | None:
        """The halves of a job with these positions; None when there is only one."""
        first, last = span
        if last - first < 2:
            return None
        return cls(job=job, unit=unit, first=first, middle=(first + last + 1) // 2, last=last)

    @property
    def kept(self) -> tuple[int, int]:
        """Positions that the job keeps, one more than the other where they are odd."""
        return self.first, self.middle

    @property
    def given(self) -> tuple[int, int]:
        """Positions that another job gets."""
        return self.middle, self.last

    def said(self, other: int, *, needed: str) -> str:
        """What is told of it.

        Args:
            other: the number of the job that gets the second half.
            needed: what was wrong with the job, as in "needed more than 2 h".
        """
        large, small = self.middle - self.first, self.last - self.middle
        sizes = f"{large}" if large == small else f"{large} and {small}"
        return (
            f"job {self.job} {needed}; its {large + small} {self.unit} go on as two jobs of {sizes}, "
            f"{self.job} and {other}"
        )


def long(seconds: float) -> str:
    """A time as people say it: ``2 h``, ``10 min``, ``90 s``."""
    if seconds >= HOUR:
        return f"{seconds / HOUR:.3g} h"
    if seconds >= 2 * MINUTE:
        return f"{seconds / MINUTE:.3g} min"
    return f"{seconds:.3g} s"
