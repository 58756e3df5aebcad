"""What the edge remembers: the rows of its database. All are immutable; a change is a new row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar

from hpcpanda.allocation.plan import AllocationPlan, AllocationStatus, InboxMessage
from hpcpanda.domain.exchange import LeaseCommit, OutputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLedger
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.why import Why
from hpcpanda.planning.situation import PackKind

_STRICT: dict[str, object] = {"extra": "forbid"}


class OutputState(StrEnum):
    """How far this edge is with a merged file of a task."""

    MADE = "made"
    MOVED = "moved"
    """It is where the user wants it."""
    RECORDED = "recorded"
    """The dispatcher knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOrder:
    """What a merge is to write. It stays as it is however often the merge is begun, so that the same files come of it."""

    __pydantic_config__: ClassVar = _STRICT

    events: IntervalSet
    """Whole ranges that the dispatcher has recorded and that are in no file."""
    rest: bool
    """What does not fill a file is written, too."""
    failed: IntervalSet = EMPTY
    """Events set aside for good, for the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task of which this edge holds, or held, events or jobs."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    spec: TaskSpec
    state: TaskState = TaskState.RUNNING
    """As the dispatcher last said."""
    first_epoch: int = 1
    """What was leased under lower epochs is void: the task is tried again."""
    event_seconds: float | None = None
    """Core-seconds an event or job, as last told or measured."""
    fruitless: int = 0
    """Packs that have ended one after the other without a finished event, or a merged file."""
    failures: int = 0
    """Those of them that ended by themselves, with an error."""
    not_before: float = 0.0
    """Nothing of the task is started before, Unix seconds."""
    error: str | None = None
    """What a pack of it last complained of."""
    merges_failed: int = 0
    merge: MergeOrder | None = None
    """What is being merged; done again as it is until it has come to its end."""
    fault: str | None = None
    """Why the task cannot run here; reported until the task is final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRecord:
    """A merged file of a task, made here."""

    __pydantic_config__: ClassVar = _STRICT

    file: OutputFile
    """As it is reported; at first as it was made."""
    state: OutputState = OutputState.MADE

    @property
    def key(self) -> tuple[int, int]:
        """Names it: the task, and the first event in it."""
        return output_key(self.file)


def output_key(file: OutputFile) -> tuple[int, int]:
    """Task and first event of a merged file; no other has the same."""
    return file.task_id, file.events.bounds[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A lease of the dispatcher, and who works on its events here."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    epoch: int
    ledger: EventLedger
    """Over the events of the lease that were not given back; its leases are to packs."""
    acknowledged: IntervalSet = EMPTY
    """Events that the dispatcher has recorded."""
    returning: IntervalSet = EMPTY
    """Given back, the dispatcher's answer outstanding."""
    lost: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Names the lease at the dispatcher."""
        return self.task_id, self.epoch

    def ledger_copy(self) -> EventLedger:
        """The ledger, to be changed and put into a new record."""
        return replace(self.ledger, leases=dict(self.ledger.leases), failed=dict(self.ledger.failed))

    def outstanding(self, holder: str) -> IntervalSet:
        """What a pack holds of this lease."""
        held = EMPTY
        for lease in self.ledger.leases.values():
            if lease.holder == holder:
                held |= lease.outstanding
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """A task in a pack."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    of_jobs: bool = False
    accepted: int = 0
    """Events, or jobs, of its journals that were accepted."""
    last_message: int = 0
    """Number of the last inbox message about it."""
    settled: bool = False
    """It is over, its journals are read, what was not done is released."""
    begun: float | None = None
    """When its head first said that the pack runs it, Unix seconds."""
    since: float | None = None
    """When its head first said that something of it is finished, Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRecord:
    """A pack of an allocation."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    kind: PackKind
    nodes: int
    parts: tuple[PartRecord, ...]
    last_message: int = 0
    """Number of the last inbox message meant for it."""
    draining: bool = False
    """It was told to end."""
    gives_way_to: int | None = None
    """The task for which it was told to end; None when there is none."""
    settled: bool = False
    """It has ended, and all its parts are settled."""

    def part(self, task_id: int) -> PartRecord | None:
        """A task in it."""
        return next((p for p in self.parts if p.task_id == task_id), None)

    @property
    def open_parts(self) -> tuple[PartRecord, ...]:
        """Parts that are not settled."""
        return tuple(p for p in self.parts if not p.settled)

    def begins_again(self) -> PackRecord:
        """The record as its head begins with it once more."""
        return replace(self, parts=tuple(replace(p, begun=None, since=None) for p in self.parts))

    def with_part(self, part: PartRecord) -> PackRecord:
        """The record with a part exchanged for its newer state, or added."""
        if self.part(part.task_id) is None:
            return replace(self, parts=(*self.parts, part))
        parts = tuple(part if p.task_id == part.task_id else p for p in self.parts)
        return replace(self, parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRecord:
    """A batch job of this edge."""

    __pydantic_config__: ClassVar = _STRICT

    allocation_id: str
    nodes: int
    walltime_s: float
    packs: tuple[PackRecord, ...]
    created: float
    state: AllocationState = AllocationState.PLANNED
    native_id: str | None = None
    plan: AllocationPlan | None = None
    """Until it is submitted."""
    submitting: bool = False
    """The batch system may have it, though its name there is not known."""
    voided: float | None = None
    """When its plan was taken away: from then on it cannot start any more."""
    started: float | None = None
    """When its present run began, Unix seconds; None while it waits, at first or again."""
    life: int = -1
    """Of the head that was last heard, see :class:`~hpcpanda.allocation.plan.AllocationStatus`; -1 before the first."""
    in_window: bool = False
    """It was asked for to fill a backfill window."""
    why: str = ""
    """The reason for its shape, for people."""
    because: Why | None = None
    """The same as data."""
    missed: bool = False
    """It was taken back because the window that it was to fill had passed."""
    messages: int = 0
    """Inbox messages so far."""
    draining: bool = False
    cancelled: bool = False

    def pack(self, pack_id: str) -> PackRecord | None:
        """The pack with that id."""
        return next((p for p in self.packs if p.pack_id == pack_id), None)

    def with_pack(self, pack: PackRecord) -> AllocationRecord:
        """The record with a pack exchanged for its newer state."""
        return replace(self, packs=tuple(pack if p.pack_id == pack.pack_id else p for p in self.packs))

    def hears(self, status: AllocationStatus) -> bool:
        """Whether a status is of the present run: an earlier one may have left its last word, or still write."""
        waits_again = self.state is AllocationState.QUEUED
        return status.life > self.life or (status.life == self.life and not waits_again)

    def holder(self, pack_id: str) -> str:
        """The name of a pack in the ledgers."""
        return f"{self.allocation_id}-{pack_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecord:
    """How far a journal has been read, and what of it belongs into the output."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """Of its file, among those of the task."""
    task_id: int
    offset: int = 0
    closed: bool = False
    chosen: dict[int, IntervalSet] = field(default_factory=dict)
    """Accepted finished events by epoch."""

    @property
    def key(self) -> tuple[int, str]:
        """Names the journal: one pack writes journals of the same name for several tasks."""
        return self.task_id, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """A commit that the dispatcher has not answered."""

    __pydantic_config__: ClassVar = _STRICT

    number: int
    commit: LeaseCommit


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """An inbox message that may not have been written yet."""

    __pydantic_config__: ClassVar = _STRICT

    allocation_id: str
    number: int
    message: InboxMessage
