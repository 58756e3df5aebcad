"""Why a task is where it is, in one sentence with the numbers that matter."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from hpcpanda.client.output import duration
from hpcpanda.domain.site_report import MAX_REASONS, MAX_SENTENCE, TaskReason
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.why import Why
from hpcpanda.planning.actions import Reason
from hpcpanda.planning.situation import PackView, TaskView
from hpcpanda.planning.tasks import largest_job
from hpcpanda_edge.looking import Look
from hpcpanda_edge.merge_work import outputs_of
from hpcpanda_edge.records import AllocationRecord, OutputRecord, OutputState, PackRecord, TaskRecord


def why(look: Look, task_id: int) -> Why:
    """Why a task is where it is, at this edge."""
    reason = look.plan.reasons[task_id]
    return Why(
        code=reason.value,
        sentence=SENTENCES[reason](_About(look, task_id)),
        numbers=look.plan.numbers.get(task_id, {}),
    )


def told(look: Look) -> tuple[TaskReason, ...]:
    """What the dispatcher is to know of why tasks are where they are, at this edge."""
    known = [t.task_id for t in look.situation.tasks if t.task_id in look.store.tasks]
    return tuple(_cut(task_id, why(look, task_id)) for task_id in known[:MAX_REASONS])


def _cut(task_id: int, said: Why) -> TaskReason:
    return TaskReason(task_id=task_id, why=replace(said, sentence=said.sentence[:MAX_SENTENCE]))


def units(number: int, spec: TaskSpec) -> str:
    """So many events, or jobs."""
    return f"{number} {spec.unit}{'s' * (number != 1)}"


class _About:
    """A task, and what is to be said of it."""

    def __init__(self, look: Look, task_id: int) -> None:
        self.look = look
        self.record: TaskRecord = look.store.tasks[task_id]
        self.view: TaskView = next(t for t in look.situation.tasks if t.task_id == task_id)

    def count(self, number: int) -> str:
        """So many events, or jobs."""
        return units(number, self.record.spec)

    @property
    def packs(self) -> list[tuple[AllocationRecord, PackRecord, PackView]]:
        """Packs that have it, a merge of it included."""
        views = {(a.allocation_id, p.pack_id): p for a in self.look.situation.allocations for p in a.packs}
        return [
            (record, pack, views[record.allocation_id, pack.pack_id])
            for record in self.look.open_allocations
            for pack in record.packs
            if (record.allocation_id, pack.pack_id) in views
            and any(p.task_id == self.record.task_id for p in pack.open_parts)
        ]

    @property
    def held(self) -> str:
        """Events, or jobs, that are in packs."""
        parts = (view.part(self.record.task_id) for _, _, view in self.packs)
        number = sum(part.held for part in parts if part is not None)
        return f"{self.count(number)} of it {'is' if number == 1 else 'are'}"

    @property
    def nodes(self) -> int:
        """Nodes that one job, an event or the merge needs."""
        return self.view.job.nodes if self.view.job is not None else 1

    @property
    def needs(self) -> str:
        """What it needs, for a sentence about nodes."""
        if self.record.state is TaskState.MERGING:
            return "Its merge needs a node"
        if self.view.job is None:
            return "It needs a node"
        plural = f"{self.nodes} nodes" if self.nodes > 1 else "a node"
        return f"A job needs {plural} for {duration(self.view.job.walltime_s)}"

    def taken(self) -> int:
        """Nodes of all open allocations."""
        return sum(a.nodes for a in self.look.situation.allocations)


def _running(about: _About) -> str:
    cores = sum(view.cores for _, _, view in about.packs)
    names = _names(about)
    others = {k.gives_way_to for _, k, _ in about.packs if k.gives_way_to is not None}
    listed = ", ".join(f"task {number}" for number in sorted(others))
    place = f" A pack makes place for {listed} when what it has begun is finished." if others else ""
    return f"{about.held} in hand in {names}, on nodes with {cores} cores.{place}"


def _starting(about: _About) -> str:
    if not about.packs:
        return f"An allocation for {about.count(about.view.ready)} is about to be asked for."
    record = about.packs[0][0]
    what = f"{about.held} in {_names(about)}"
    match record.state:
        case AllocationState.PLANNED:
            return f"{what}, which is about to be submitted."
        case AllocationState.QUEUED:
            return (
                f"{what}, which waits in the batch queue for {duration(about.look.now - record.created)} now."
            )
        case _:
            before = next(
                (k for k in record.packs if k.gives_way_to == about.record.task_id and not k.settled), None
            )
            if before is not None:
                return f"{what}, which starts when pack {before.pack_id} has finished what it has begun."
            return f"{what}, which is starting."


def _staging(about: _About) -> str:
    outlook = about.look.outlook
    waits = outlook.staging.get(about.record.task_id) if outlook is not None else None
    return f"Its inputs are not in place: {waits or 'they are being copied'}."


def _no_work(about: _About) -> str:
    outlook = about.look.outlook
    back = outlook.given_back.get(about.record.task_id) if outlook is not None else None
    if back is None:
        return "Nothing of it is here to run; more is asked for as capacity allows."
    ago = duration(about.look.now - back.at)
    match back.reason:
        case Reason.NO_WORK:
            why = "there was no place for it."
        case Reason.RUNNING | Reason.STARTING:  # of what its packs had then; they may have none by now
            why = "its packs had enough."
        case _:
            why = SENTENCES[back.reason](about)
    return f"Nothing of it is here to run; what was here went back to the dispatcher {ago} ago: {_uncap(why)}"


def _backing_off(about: _About) -> str:
    task = about.record
    left = max(0.0, task.not_before - about.look.now)
    clock = time.strftime("%H:%M:%S", time.localtime(task.not_before))
    packs = f"{task.fruitless} pack{'s' * (task.fruitless != 1)}"
    last = f" The last said: {task.error}" if task.error else ""
    if not task.fruitless or task.state is TaskState.MERGING:
        return f"Its last try failed; the next is in {duration(left)}, at {clock}.{last}"
    return f"{packs} ended without a finished {task.spec.unit}; the next try is in {duration(left)}, at {clock}.{last}"


def _allocation_limit(about: _About) -> str:
    limit = about.look.site.limits.allocations
    return f"{about.needs}, and all allocations that limits.allocations allows ({limit}) are in use."


def _node_limit(about: _About) -> str:
    site = about.look.site
    return (
        f"{about.needs}; {about.taken()} of the {site.node_limit} nodes that the site file allows are in use."
    )


def _submission_failing(about: _About) -> str:
    outlook = about.look.outlook
    left = max(0.0, about.look.situation.submit_not_before - about.look.now)
    said = f" It said: {outlook.refusal}" if outlook is not None and outlook.refusal else ""
    return f"The batch system refused the last submission; the next is in {duration(left)} at the earliest.{said}"


def _no_window(about: _About) -> str:
    windows = about.look.situation.windows
    if windows:
        there = f"there is {', '.join(map(str, windows))}"
    else:
        there = "no node is free" if windows is not None else "nothing is known of windows"
    return (
        f"{about.needs}, and no backfill window takes that ({there}); a request waits in the queue already."
    )


def _waiting_for_nodes(about: _About) -> str:
    if about.view.job is None or about.record.state is TaskState.MERGING:
        return "Its merge waits for a free node."
    free = max((a.free_nodes for a in about.look.situation.allocations if a.accepts), default=0)
    return f"{about.needs} together; at most {free} of an allocation are free, and packs make place."


def _does_not_fit(about: _About) -> str:
    job = about.view.job
    refusal = largest_job(about.look.situation).refusal(job) if job is not None else None
    return f"A job {refusal or 'asks for more than there is'}: it can never run here."


def _draining(about: _About) -> str:
    return f"The edge is ending: it starts nothing new; {about.held} in hand in packs."


def _waiting_for_commits(about: _About) -> str:
    open_ = sum(c.commit.task_id == about.record.task_id for c in about.look.store.commits.values())
    if not open_:
        return "There is nothing of it to merge here."
    return f"Its merge waits until the dispatcher has answered {open_} commit{'s' * (open_ != 1)}."


def _merging(about: _About) -> str:
    done = [
        said.progress
        for record, pack, _ in about.packs
        if (status := about.look.statuses.get(record.allocation_id)) is not None
        for said in status.packs
        if said.pack_id == pack.pack_id
    ]
    progress = f": {max(done):.0%} done" if done else ", which has not begun"
    return f"It is merged in {_names(about)}{progress}."


def _merged(about: _About) -> str:
    records = outputs_of(about.look.store, about.record.task_id)
    if len(records) > 1:
        return _several(records)
    if not records:  # the dispatcher has refused it since the plan was made
        return "Its merged file is made."
    record = records[0]
    outlook = about.look.outlook
    waits = outlook.staging.get(about.record.task_id) if outlook is not None else None
    match record.state:
        case OutputState.MADE if about.record.spec.staging.destination is not None:
            return f"Its merged file is made, {waits or 'and is to be moved'}."
        case OutputState.RECORDED:
            return f"Its merged file is {record.file.path}."
        case _:
            return f"Its merged file is {record.file.path}; the dispatcher is being told."


def _several(records: Sequence[OutputRecord]) -> str:
    states = Counter(record.state for record in records)
    text = f"Its {len(records)} merged files are made, the last is {records[-1].file.path}"
    if made := states[OutputState.MADE]:
        text += f"; {made} {'is' if made == 1 else 'are'} to be moved"
    if moved := states[OutputState.MOVED]:
        text += f"; the dispatcher is being told of {moved}"
    return f"{text}."


def _fault(about: _About) -> str:
    return f"It cannot run here: {about.record.fault}"


def _paused(_: _About) -> str:
    return "Its user has paused it: what runs here is finished, the rest of its work goes back."


def _final(about: _About) -> str:
    return f"The dispatcher calls it {about.record.state.value}; what is left of it here is being removed."


SENTENCES: Final[dict[Reason, Callable[[_About], str]]] = {
    Reason.RUNNING: _running,
    Reason.STARTING: _starting,
    Reason.STAGING: _staging,
    Reason.NO_WORK: _no_work,
    Reason.BACKING_OFF: _backing_off,
    Reason.ALLOCATION_LIMIT: _allocation_limit,
    Reason.NODE_LIMIT: _node_limit,
    Reason.SUBMISSION_FAILING: _submission_failing,
    Reason.NO_WINDOW: _no_window,
    Reason.WAITING_FOR_NODES: _waiting_for_nodes,
    Reason.DOES_NOT_FIT: _does_not_fit,
    Reason.DRAINING: _draining,
    Reason.WAITING_FOR_COMMITS: _waiting_for_commits,
    Reason.MERGING: _merging,
    Reason.MERGED: _merged,
    Reason.FAULT: _fault,
    Reason.PAUSED: _paused,
    Reason.FINAL: _final,
}
"""The sentence of each reason."""


def _names(about: _About) -> str:
    names = [f"pack {pack.pack_id} of allocation {record.allocation_id}" for record, pack, _ in about.packs]
    return names[0] if len(names) == 1 else f"{len(names)} packs"


def _uncap(text: str) -> str:
    return text[:1].lower() + text[1:]
