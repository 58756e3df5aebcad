"""`hpcpanda-edge explain`: why each task is where it is, why each allocation has its shape, what its packs do."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from hpcpanda.allocation.plan import PackStatus
from hpcpanda.client.output import duration, plain_console, printable
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.why import Why
from hpcpanda.planning.situation import PackView, PartView
from hpcpanda_edge.learnt import Learnt, learnt, sentences
from hpcpanda_edge.looking import Look
from hpcpanda_edge.reasons import units, why
from hpcpanda_edge.records import AllocationRecord, PackRecord
from hpcpanda_edge.view import pack_status


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWhy:
    """Why a task is where it is."""

    task_id: int
    name: str
    reason: str
    """The planner's word."""
    why: str
    """The same as a sentence."""
    numbers: dict[str, float]
    """What it rests on, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackWhy:
    """What a pack does."""

    pack_id: str
    kind: str
    nodes: int
    draining: bool
    """It was told to end."""
    gives_way_to: int | None
    """The task for which it was told to end: its MPI job, or its more urgent events, get the nodes."""
    cores: int
    cores_busy: float
    does: tuple[str, ...]
    """One sentence a task."""
    complaints: tuple[str, ...] = ()
    """Nodes that get no jobs, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationWhy:
    """Why an allocation has its shape, and what its packs do."""

    allocation_id: str
    native_id: str | None
    state: str
    why: str
    because: Why | None
    """The same as data; None for one of an earlier version."""
    in_window: bool
    """It was asked for to fill a backfill window."""
    packs: tuple[PackWhy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why things at an edge are as they are."""

    site: str
    running: bool
    notes: tuple[str, ...]
    """What holds for all tasks."""
    tasks: tuple[TaskWhy, ...]
    allocations: tuple[AllocationWhy, ...]
    refusals: tuple[Why, ...]
    """Why no more allocations are asked for now."""
    learnt: Learnt
    """What the edge has learnt of its site, and of these tasks."""


SHOWN_REFUSALS: Final = 5
"""More reasons than these are told in JSON only."""

EXPLANATION: TypeAdapter[Explanation] = TypeAdapter(Explanation)


def explain(look: Look, task_id: int | None = None) -> Explanation:
    """Why things are as they are; of one task only, if it is said.

    Raises:
        NotFound: the edge has nothing of that task.
    """
    if task_id is not None and task_id not in look.store.tasks:
        raise NotFound(
            f"this edge has nothing of task {task_id}; 'hpcpanda task explain {task_id}' says what the dispatcher knows"
        )
    wanted = sorted(look.store.tasks) if task_id is None else [task_id]
    return Explanation(
        site=look.site.name,
        running=look.running,
        notes=tuple(_notes(look)),
        tasks=tuple(_task(look, t) for t in wanted),
        allocations=tuple(
            _allocation(look, record)
            for record in look.open_allocations
            if task_id is None or any(p.task_id == task_id for k in record.packs for p in k.open_parts)
        ),
        refusals=look.plan.refusals,
        learnt=learnt(look.knowledge, look.store, look.site, look.now, task_id),
    )


def _notes(look: Look) -> list[str]:
    if not look.running:
        return [
            "No edge runs over this spool: nothing moves until it is started; allocations that run go on."
        ]
    if look.outlook is None:
        return ["The running edge has not said lately what it knows of backfill windows and staging."]
    windows = look.situation.windows
    if windows is None:
        why = look.outlook.windows_unknown or "the batch system was not asked yet"
        return [f"Nothing is known of backfill windows: {why}."]
    if not windows:
        return ["There are no backfill windows: no node is free."]
    return [f"There is {window}." for window in windows]


def _task(look: Look, task_id: int) -> TaskWhy:
    told = why(look, task_id)
    return TaskWhy(
        task_id=task_id,
        name=look.store.tasks[task_id].spec.name,
        reason=told.code,
        why=told.sentence,
        numbers=told.numbers,
    )


def _allocation(look: Look, record: AllocationRecord) -> AllocationWhy:
    view = next((a for a in look.situation.allocations if a.allocation_id == record.allocation_id), None)
    packs = {p.pack_id: p for p in view.packs} if view is not None else {}
    state = "draining" if record.draining else record.state.value
    if record.started is None:
        state += f", for {duration(look.now - record.created)} now"
    elif view is not None:
        state += f", {duration(max(0.0, view.seconds_left))} of work left"
    return AllocationWhy(
        allocation_id=record.allocation_id,
        native_id=record.native_id,
        state=state,
        why=record.why,
        because=record.because,
        in_window=record.in_window,
        packs=tuple(_pack(look, record, p, packs[p.pack_id]) for p in record.packs if p.pack_id in packs),
    )


def _pack(look: Look, record: AllocationRecord, pack: PackRecord, view: PackView) -> PackWhy:
    said = pack_status(look.statuses.get(record.allocation_id), pack.pack_id)
    return PackWhy(
        pack_id=pack.pack_id,
        kind=pack.kind,
        nodes=pack.nodes,
        draining=pack.draining,
        gives_way_to=pack.gives_way_to,
        cores=said.cores if said is not None else 0,
        cores_busy=round(said.cores_busy, 1) if said is not None else 0.0,
        does=tuple(_does(look, part, pack, said) for part in view.parts),
        complaints=said.complaints if said is not None else (),
    )


def _does(look: Look, part: PartView, pack: PackRecord, said: PackStatus | None) -> str:
    """What a pack does for a task."""
    spec = look.store.tasks[part.task_id].spec
    name = f"task {part.task_id} '{spec.name}'"
    if pack.kind == "merge":
        return f"{name}: {said.progress if said is not None else 0:.0%} merged"
    told = said.task(part.task_id) if said is not None else None
    if told is None:
        return f"{name}: has {units(part.held, spec)}, not begun"
    running = max(0, part.held - told.waiting)
    text = f"{name}: {units(running, spec)} on {told.cores_busy:.1f} cores, {told.waiting} waiting, {told.done} done"
    return f"{text}; {told.error}" if told.error else text


def show_text(explanation: Explanation) -> None:
    """For people."""
    console = plain_console()

    def say(text: str) -> None:
        console.print(printable(text), soft_wrap=True)

    say(f"edge {explanation.site}: {'running' if explanation.running else 'not running'}")
    for note in explanation.notes:
        say(note)
    for refusal in explanation.refusals[:SHOWN_REFUSALS]:
        say(f"No more is asked of the batch system ({refusal.code}): {refusal.sentence}")
    for task in explanation.tasks:
        say(f"\ntask {task.task_id} '{task.name}' ({task.reason})")
        say(f"  {task.why}")
    for allocation in explanation.allocations:
        native = f", job {allocation.native_id}" if allocation.native_id is not None else ""
        say(f"\nallocation {allocation.allocation_id}{native}: {allocation.state}")
        say(f"  {allocation.why}")
        for pack in allocation.packs:
            nodes = (
                f"{pack.nodes} node{'s' * (pack.nodes != 1)}"
                if pack.nodes
                else "a core that others have, too"
            )
            where = f"{nodes}{_end_of(pack)}"
            busy = f"{pack.cores_busy} of {pack.cores} cores busy"
            say(f"  {pack.kind} pack {pack.pack_id} on {where}: {busy}")
            for text in (*pack.does, *pack.complaints):
                say(f"    {text}")
    for number, text in enumerate(sentences(explanation.learnt)):
        say(text if number else f"\nlearnt\n{text}")


def _end_of(pack: PackWhy) -> str:
    if pack.gives_way_to is not None:
        return f", finishing what it has begun, to make place for task {pack.gives_way_to}"
    return ", told to end" if pack.draining else ""


def show_json(explanation: Explanation) -> None:
    """For programs."""
    sys.stdout.write(EXPLANATION.dump_json(explanation, indent=2).decode() + "\n")
