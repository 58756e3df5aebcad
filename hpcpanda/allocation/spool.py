"""The spool folder on the shared file system: where everything of a site lies, and how messages are left there.

::

    SPOOL/allocations/ALLOCATION/plan.json          what the allocation starts with
                                 inbox/000001.json  messages from the edge, in order
                                 status.json        the head's last word
                                 head.log  logs/    what head, packs and payloads print
                                 packs/             packs as started, for the ranks to read
    SPOOL/tasks/TASK/events/ALLOCATION-PACK-iN-rRANK.journal   and its segments
    SPOOL/tasks/TASK/output/                        merged files
    SPOOL/quarantine.json                           nodes on which nothing is to be started
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hpcpanda.allocation.plan import AllocationPlan, AllocationStatus, InboxMessage
from hpcpanda.domain.errors import CorruptData
from hpcpanda.events.adapter import Adapter

M = TypeVar("M")

PLAN: Adapter[AllocationPlan] = Adapter(AllocationPlan)
STATUS: Adapter[AllocationStatus] = Adapter(AllocationStatus)
MESSAGE: Adapter[InboxMessage] = Adapter(InboxMessage)


@dataclass(frozen=True, slots=True)
class AllocationFolder:
    """Paths of one allocation in the spool."""

    path: Path

    @property
    def plan(self) -> Path:
        """The :class:`AllocationPlan`."""
        return self.path / "plan.json"

    @property
    def status(self) -> Path:
        """The :class:`AllocationStatus`, replaced by the head about once a second."""
        return self.path / "status.json"

    @property
    def inbox(self) -> Path:
        """Messages from the edge."""
        return self.path / "inbox"

    @property
    def logs(self) -> Path:
        """What packs and payloads print."""
        return self.path / "logs"

    @property
    def packs(self) -> Path:
        """Packs as they were started."""
        return self.path / "packs"

    @property
    def journals(self) -> Path:
        """Journals whose task was cleaned up while the allocation went on: for its timeline only."""
        return self.path / "journals"

    @property
    def timeline(self) -> Path:
        """The trace file of its cores, written when the allocation has ended."""
        return self.path / "timeline.json"

    @property
    def history(self) -> Path:
        """Begin, end and life of the packs and the allocation, one JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def reserve(self) -> Path:
        """Room on the disk that the head gives up when it is full, so that its last word can be written."""
        return self.path / "reserve"

    def message(self, number: int) -> Path:
        """The inbox message with that number; the first is 1."""
        return self.inbox / f"{number:06d}.json"

    def create(self) -> None:
        """Make the folders; harmless when they exist."""
        for folder in (self.inbox, self.logs, self.packs):
            folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Spool:
    """Paths of a site's spool folder."""

    path: Path

    def allocation(self, allocation_id: str) -> AllocationFolder:
        """The folder of one allocation."""
        return AllocationFolder(self.path / "allocations" / allocation_id)

    @property
    def quarantine(self) -> Path:
        """The :class:`~hpcpanda.allocation.node_quarantine.QuarantinedNodes`; not there before there were any."""
        return self.path / "quarantine.json"

    def events(self, task_id: int) -> Path:
        """Journals and segments of a task."""
        return self.path / "tasks" / str(task_id) / "events"

    def output(self, task_id: int) -> Path:
        """Merged files of a task."""
        return self.path / "tasks" / str(task_id) / "output"


def journal_name(allocation_id: str, pack_id: str, incarnation: int, rank: int) -> str:
    """File name of the journal of one rank of one incarnation of a pack."""
    return f"{allocation_id}-{pack_id}-i{incarnation}-r{rank}.journal"


def journal_pattern(allocation_id: str, pack_id: str = "*") -> str:
    """Glob pattern of all journals of an allocation, or of one of its packs."""
    return f"{allocation_id}-{pack_id}-i*-r*.journal"


def write_message(path: Path, adapter: Adapter[M], message: M, *, durable: bool = True) -> None:
    """Write under a temporary name, sync, rename: readers see all of it or nothing.

    ``durable=False`` leaves the syncs out, for what is only of the moment.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(adapter.dump_json(message))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
    if durable:
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def read_message(path: Path, adapter: Adapter[M]) -> M:
    """Read what :func:`write_message` wrote.

    Raises:
        FileNotFoundError: it is not there (yet).
        CorruptData: it is not what it should be.
    """
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as problem:
        raise CorruptData(f"{path}: {problem}") from problem
