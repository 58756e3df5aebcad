"""What the command line shows of an edge: as a table, as JSON, or only an exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from rich.table import Table

from hpcpanda.allocation.spool import Spool
from hpcpanda.client.output import plain_console
from hpcpanda.domain.intervals import EMPTY
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge import accounts
from hpcpanda_edge.files import StatusReader
from hpcpanda_edge.planner import make_plan
from hpcpanda_edge.reporting import activity
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import situation


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A task at this edge."""

    task_id: int
    name: str
    state: str
    waiting: int
    """Events leased that no pack works on."""
    in_work: int
    done: int
    failed: int
    unacknowledged: int
    """Finished events that the dispatcher has not answered for yet."""
    reason: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationLine:
    """An allocation of this edge."""

    allocation_id: str
    native_id: str | None
    state: str
    nodes: int
    packs: str
    cores: int
    cores_busy: float
    status_age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeStatus:
    """An edge, from what it remembers."""

    site: str
    spool: str
    running: bool
    cores: int
    cores_busy: float
    tasks: tuple[TaskLine, ...]
    allocations: tuple[AllocationLine, ...]


STATUS: TypeAdapter[EdgeStatus] = TypeAdapter(EdgeStatus)


def edge_status(site: Site, spool: Spool, store: Store, *, running: bool) -> EdgeStatus:
    """Where things are at an edge."""
    now = time.time()
    open_ = [a for a in store.allocations.values() if a.state is not AllocationState.CLOSED]
    statuses = {s.allocation_id: s for s in StatusReader(spool).read(a.allocation_id for a in open_)}
    reasons = make_plan(situation(store, statuses, site=site, now=now)).reasons
    allocations: list[AllocationLine] = []
    for record in open_:
        status = statuses.get(record.allocation_id)
        packs = status.packs if status is not None else ()
        allocations.append(
            AllocationLine(
                allocation_id=record.allocation_id,
                native_id=record.native_id,
                state="draining" if record.draining else record.state.value,
                nodes=record.nodes,
                packs=" ".join(f"{p.pack_id}:{p.kind}:{p.task_id}" for p in record.packs if not p.settled),
                cores=sum(p.cores for p in packs),
                cores_busy=sum(p.cores_busy for p in packs),
                status_age_s=round(now - status.written, 1) if status is not None else None,
            )
        )
    used = activity(store, statuses)
    return EdgeStatus(
        site=site.name,
        spool=str(spool.path),
        running=running,
        cores=sum(a.cores for a in used),
        cores_busy=round(sum(a.cores_busy for a in used), 1),
        tasks=tuple(_task_line(store, t, reasons[t].value) for t in sorted(store.tasks)),
        allocations=tuple(allocations),
    )


def _task_line(store: Store, task_id: int, reason: str) -> TaskLine:
    task = store.tasks[task_id]
    leases = accounts.leases_of(store, task_id)
    finished = sum(len(v.ledger.done) + len(v.ledger.failed) for v in leases)
    acknowledged = sum(len(v.acknowledged) for v in leases)
    return TaskLine(
        task_id=task_id,
        name=task.spec.name,
        state=task.state.value,
        waiting=accounts.ready_events(store, task_id),
        in_work=sum(len(v.ledger.leased) for v in leases),
        done=sum(len(v.ledger.done) for v in leases),
        failed=sum(len(v.ledger.failed) for v in leases),
        unacknowledged=max(0, finished - acknowledged)
        if any(v.acknowledged != EMPTY for v in leases)
        else finished,
        reason=reason,
        error=task.fault or task.error,
    )


def show_table(status: EdgeStatus) -> None:
    """For people."""
    console = plain_console()
    running = "running" if status.running else "not running"
    console.print(f"edge {status.site}: {running}, {status.cores_busy} of {status.cores} cores busy")
    console.print(f"spool {status.spool}", soft_wrap=True)
    console.print(_table("allocations", status.allocations))
    console.print(_table("tasks", status.tasks))


def show_json(status: EdgeStatus) -> None:
    """For programs."""
    sys.stdout.write(STATUS.dump_json(status, indent=2).decode() + "\n")


def _table(title: str, lines: Sequence[Any]) -> Table:
    table = Table(title=title, title_justify="left")
    if not lines:
        table.add_column("none")
        return table
    names = list(type(lines[0]).__dataclass_fields__)
    for name in names:
        table.add_column(name.replace("_", " "))
    for line in lines:
        values = (getattr(line, name) for name in names)
        table.add_row(*("" if v is None else f"{v:.1f}" if isinstance(v, float) else str(v) for v in values))
    return table
