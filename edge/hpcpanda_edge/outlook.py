"""What only the running edge knows, left in its state folder for `status` and `explain`.

A second process sees the edge's memory and what the heads write. It does not see backfill windows, how far staging is, or
why work was given back: the running edge leaves these, every few seconds.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from hpcpanda.allocation.spool import read_message, write_message
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.adapter import Adapter
from hpcpanda.packing.windows import BackfillWindow, shorten
from hpcpanda.planning.actions import GiveBack, Plan, Reason

PACE_S: Final = 5.0
"""It is written so often."""
STALE_S: Final = 60.0
"""One older than this tells nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBack:
    """When work of a task was last returned to the dispatcher, and why."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    at: float
    """Unix seconds."""
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the running edge knew."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    written: float
    """Unix seconds."""
    windows: tuple[BackfillWindow, ...] | None
    windows_unknown: str | None = None
    """Why nothing is known of windows."""
    windows_seen: float | None = None
    """When the batch system told of the windows, Unix seconds."""
    submit_not_before: float = 0.0
    refusal: str | None = None
    """What the batch system said to the last submission, if it refused."""
    draining: bool = False
    staged: dict[int, IntervalSet] = field(default_factory=dict)
    """Of tasks that are staged: the events, or jobs, whose inputs are in place."""
    staging: dict[int, str] = field(default_factory=dict)
    """What the staging of a task waits for."""
    given_back: dict[int, GivenBack] = field(default_factory=dict)

    def windows_at(self, now: float) -> tuple[BackfillWindow, ...] | None:
        """The windows less the time since they were seen."""
        return None if self.windows is None else shorten(self.windows, by=max(0.0, now - self.written))


OUTLOOK: Final[Adapter[Outlook]] = Adapter(Outlook)


def read_outlook(path: Path, now: float) -> Outlook | None:
    """What the running edge left; None when there is nothing, or nothing that still holds."""
    with contextlib.suppress(OSError, CorruptData):
        found = read_message(path, OUTLOOK)
        return found if now - found.written <= STALE_S else None
    return None


class OutlookKeeper:
    """Keeps the outlook of the running edge and writes it now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = 0.0
        self._given_back: dict[int, GivenBack] = {}

    def note(self, plan: Plan, now: float) -> None:
        """Remember what a plan gives back."""
        for action in plan.actions:
            if isinstance(action, GiveBack):
                self._given_back[action.task_id] = GivenBack(at=now, reason=plan.reasons[action.task_id])
        self._given_back = {t: g for t, g in self._given_back.items() if t in plan.reasons}

    @property
    def given_back(self) -> dict[int, GivenBack]:
        """By task."""
        return dict(self._given_back)

    @property
    def due(self) -> bool:
        """Whether it is time to write it."""
        return time.monotonic() >= self._due

    def write(self, outlook: Outlook) -> None:
        """Leave it; only of the moment, so a disk that refuses costs nothing but the outlook."""
        self._due = time.monotonic() + PACE_S
        with contextlib.suppress(OSError):
            write_message(self._path, OUTLOOK, outlook, durable=False)
