"""When a site is given nothing for a while, since too much fails by its own fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from hpcpanda.domain.failures import FailureKind, sentence_of

WITHIN_S: Final = 3600.0
"""Faults of the last hour count."""
FAULTS: Final = 5
TASKS: Final = 3
OWNERS: Final = 2
"""So many faults of so many tasks of so many users bar a site: no user alone can."""
BARRED_S: Final = 1800.0
"""So long it is given nothing."""
KEPT: Final = 20
"""So many of the last faults of a site are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFault:
    """One failure that was put down to a site; many events of a task in one message are one."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    at: float
    """Unix seconds."""
    task_id: int
    owner: str
    kind: FailureKind


def kept(faults: Sequence[SiteFault], *, now: float) -> tuple[SiteFault, ...]:
    """Those that still count."""
    return tuple(fault for fault in faults if fault.at > now - WITHIN_S)[-KEPT:]


def is_barred(faults: Sequence[SiteFault], *, now: float) -> bool:
    """Whether a site with these faults is given nothing for a while."""
    recent = kept(faults, now=now)
    return (
        len(recent) >= FAULTS
        and len({fault.task_id for fault in recent}) >= TASKS
        and len({fault.owner for fault in recent}) >= OWNERS
    )


def told(faults: Sequence[SiteFault], *, until: float, now: float) -> str:
    """Why a site is given nothing, in a sentence."""
    if not faults:
        return "It is given nothing for a while."
    last = sentence_of(faults[-1].kind)
    tasks = len({fault.task_id for fault in faults})
    return (
        f"It is given nothing for {max(0.0, until - now) / 60:.0f} min more: {len(faults)} failures in "
        f"{tasks} tasks were its own; of the last: {last[0].lower()}{last[1:]}."
    )
