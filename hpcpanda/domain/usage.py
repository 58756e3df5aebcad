"""What tasks have cost: said by edges as it comes about, kept by the dispatcher by day, site and task.

Core-seconds of a task in an allocation come out of one account::

    held = used + idle            nodes of the allocation x cores of a node x time
    used = useful + lost + open   cores that were at work

``useful`` is what accepted events and jobs took, ``lost`` is what came to nothing, and ``open`` is not settled yet: work
in hand, and what was lost in allocations that have not ended. Where several tasks share an allocation, what it holds is
divided among them as its cores worked for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import MAX_EVENTS, require_between

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

MAX_USAGES = 10_000
"""Most tasks in one report."""
MAX_SECONDS = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What was used, and what came of it."""

    __pydantic_config__: ClassVar = _STRICT

    used_s: float = 0.0
    """Core-seconds that cores were at work."""
    useful_s: float = 0.0
    """Core-seconds of events and jobs that were accepted."""
    preempted_s: float = 0.0
    """Core-seconds lost in allocations that the batch system has ended before their time."""
    lost_s: float = 0.0
    """Core-seconds lost otherwise: attempts that failed, results that came too late, handing work over."""
    held_s: float = 0.0
    """Core-seconds of the nodes that were allocated, at work or not."""
    node_s: float = 0.0
    """Node-seconds that were allocated: what the centre charges."""
    waiting_s: float = 0.0
    """Seconds that allocations have waited in the batch queue."""
    done: int = 0
    """Events, or jobs, accepted as done."""
    failed: int = 0
    """Events, or jobs, set aside for good."""

    def plus(self, other: Amounts) -> Amounts:
        """Both together."""
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in AMOUNTS})

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return any(getattr(self, name) for name in AMOUNTS)


AMOUNTS = tuple(f.name for f in fields(Amounts))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUsage:
    """What a task has used at a site since this was last said."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    amounts: Amounts

    def __post_init__(self) -> None:
        for name in AMOUNTS:
            most = MAX_SECONDS if name.endswith("_s") else MAX_EVENTS
            require_between(f"usage.tasks.{name}", getattr(self.amounts, name), 0, most)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """What tasks have used at a site since the report before.

    A report is sent again, unchanged, until it is answered; the dispatcher counts each sequence number of an edge
    instance once.
    """

    __pydantic_config__: ClassVar = _STRICT

    sequence: int
    """Numbers the reports of an edge instance, 1, 2, 3, ..."""
    tasks: tuple[TaskUsage, ...]

    def __post_init__(self) -> None:
        require_between("usage.sequence", self.sequence, 1, MAX_EVENTS)
        if len(self.tasks) > MAX_USAGES:
            raise InvalidValue("usage.tasks", f"more than {MAX_USAGES}; send several reports")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLedger:
    """What an edge has to say of usage: numbered reports, one under way at a time. Pure."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    since: float
    """When this edge began to count, Unix seconds."""
    sequence: int = 0
    """Of the last report."""
    sent: tuple[TaskUsage, ...] = ()
    """The last report while it is not answered: it stays as it is."""
    gathered: Mapping[int, Amounts] = field(default_factory=dict)
    """By task, for the next one."""

    def add(self, found: Iterable[tuple[int, Amounts]]) -> UsageLedger:
        """Count amounts by task."""
        gathered = dict(self.gathered)
        for task_id, amounts in found:
            if amounts:
                gathered[task_id] = gathered.get(task_id, NOTHING).plus(amounts)
        return self if gathered == self.gathered else replace(self, gathered=gathered)

    def next_report(self) -> UsageLedger:
        """Begin a report with what was gathered, unless one is under way or there is nothing to say."""
        if self.sent or not self.gathered:
            return self
        numbers = sorted(self.gathered)
        return replace(
            self,
            sequence=self.sequence + 1,
            sent=tuple(TaskUsage(task_id=t, amounts=self.gathered[t]) for t in numbers[:MAX_USAGES]),
            gathered={t: self.gathered[t] for t in numbers[MAX_USAGES:]},
        )

    @property
    def report(self) -> UsageReport | None:
        """The report to send; None when everything is answered."""
        return UsageReport(sequence=self.sequence, tasks=self.sent) if self.sent else None

    def answered(self, sequence: int) -> UsageLedger:
        """The dispatcher has counted a report."""
        return replace(self, sent=()) if sequence == self.sequence else self


NOTHING = Amounts()


class UsageBy(StrEnum):
    """By what a report of usage is divided."""

    TASK = "task"
    USER = "user"
    GROUP = "group"
    SITE = "site"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One line of a report of usage."""

    __pydantic_config__: ClassVar = _STRICT

    key: str
    """Number of the task, name of the user, group or site, or the day; a group may be empty."""
    name: str = ""
    """Name of the task, where it is one."""
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTable:
    """What was used in some days, as far as the caller sees it."""

    __pydantic_config__: ClassVar = _STRICT

    by: UsageBy
    first: str
    """First day, ``YYYY-MM-DD``; days are those of UTC."""
    last: str
    """Last day; it is counted too."""
    rows: tuple[UsageRow, ...]
    """Days in order; others by what they held, most first."""
    total: Amounts
    """Of all rows, also of those left out."""
    left_out: int = 0
    """Rows beyond the limit."""
