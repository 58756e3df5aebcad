"""What the command line shows of an edge: as a table, as JSON, or only an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from rich.table import Table

from hpcpanda.client.output import plain_console, table
from hpcpanda.domain.intervals import EMPTY
from hpcpanda_edge import accounts
from hpcpanda_edge.looking import Look
from hpcpanda_edge.reporting import activity


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A task at this edge."""

    task_id: int
    name: str
    unit: str
    """What is counted: ``event`` or ``job``."""
    state: str
    staging: int
    """Those here whose inputs are not in place."""
    waiting: int
    """Those here that no pack has, the former included."""
    in_work: int
    """Those that packs have."""
    running: int
    """Those of them that have begun, as far as the heads have said."""
    done: int
    failed: int
    unacknowledged: int
    """Finished ones that the dispatcher has not answered for yet."""
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
    complaints: str
    """Nodes that get no jobs, and why."""
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


def edge_status(look: Look) -> EdgeStatus:
    """Where things are at an edge."""
    allocations: list[AllocationLine] = []
    for record in look.open_allocations:
        status = look.statuses.get(record.allocation_id)
        packs = [p for p in status.packs if p.state != "ended"] if status is not None else []
        allocations.append(
            AllocationLine(
                allocation_id=record.allocation_id,
                native_id=record.native_id,
                state="draining" if record.draining else record.state.value,
                nodes=record.nodes,
                packs=" ".join(
                    f"{p.pack_id}:{p.kind}:{'+'.join(str(t.task_id) for t in p.open_parts)}"
                    for p in record.packs
                    if not p.settled
                ),
                cores=sum(p.cores for p in packs),
                cores_busy=sum(p.cores_busy for p in packs),
                complaints="; ".join(c for p in packs for c in p.complaints),
                status_age_s=round(look.now - status.written, 1) if status is not None else None,
            )
        )
    used = activity(look.store, look.statuses)
    return EdgeStatus(
        site=look.site.name,
        spool=str(look.spool.path),
        running=look.running,
        cores=sum(a.cores for a in used),
        cores_busy=round(sum(a.cores_busy for a in used), 1),
        tasks=tuple(_task_line(look, t) for t in sorted(look.store.tasks)),
        allocations=tuple(allocations),
    )


def _task_line(look: Look, task_id: int) -> TaskLine:
    store = look.store
    task = store.tasks[task_id]
    leases = accounts.leases_of(store, task_id)
    finished = sum(len(v.ledger.done) + len(v.ledger.failed) for v in leases)
    acknowledged = sum(len(v.acknowledged) for v in leases)
    waiting = len(accounts.ready_events(store, task_id))
    view = next(t for t in look.situation.tasks if t.task_id == task_id)
    parts = [p for a in look.situation.allocations for k in a.packs if (p := k.part(task_id)) is not None]
    return TaskLine(
        task_id=task_id,
        name=task.spec.name,
        unit=task.spec.unit,
        state=task.state.value,
        staging=waiting - view.ready,
        waiting=waiting,
        in_work=sum(len(v.ledger.leased) for v in leases),
        running=sum(max(0, p.held - p.waiting) for p in parts if p.backlog_s is not None),
        done=sum(len(v.ledger.done) for v in leases),
        failed=sum(len(v.ledger.failed) for v in leases),
        unacknowledged=max(0, finished - acknowledged)
        if any(v.acknowledged != EMPTY for v in leases)
        else finished,
        reason=look.plan.reasons[task_id].value,
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


def _table(title: str, lines: Sequence[Any]) -> Table | str:
    if not lines:
        return f"{title}: none"
    names = list(type(lines[0]).__dataclass_fields__)
    rows = [[_cell(getattr(line, name)) for name in names] for line in lines]
    return table(*(name.replace("_", " ") for name in names), rows=rows, title=f"\n{title}")


def _cell(value: object) -> str | int:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.1f}"
        case int():
            return value
        case _:
            return str(value)
