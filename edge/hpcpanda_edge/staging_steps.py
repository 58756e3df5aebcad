"""Staging in the edge's round: have copied what is to be, and enter how far that is."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.domain.task import Staging
from hpcpanda_edge import accounts
from hpcpanda_edge.records import OutputRecord, OutputState, TaskRecord
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store


class StagingSteps:
    """Asks the stager for what tasks need, which never blocks."""

    def __init__(self, store: Store, steps: Steps, stager: Stager) -> None:
        self._store = store
        self._steps = steps
        self._stager = stager
        self.waiting: dict[int, str] = {}
        """What the staging of each task waits for, as of the last look."""

    def look(self) -> None:
        """Have inputs and outputs copied that are to be, and enter how far they are."""
        self.waiting = {}
        for task in list(self._store.tasks.values()):
            if task.state.final or task.fault is not None or task.spec.staging == Staging():
                self._steps.staged.pop(task.task_id, None)
            else:
                self._stage_in(task)
        for record in [r for r in self._store.outputs.values() if r.state is OutputState.MADE]:
            self._stage_out(record)

    def _stage_in(self, task: TaskRecord) -> None:
        needed = accounts.unfinished_events(self._store, task.task_id)
        incoming = self._stager.want(task.task_id, task.spec, needed)
        self._steps.staged[task.task_id] = incoming.ready
        if incoming.waiting is not None:
            self.waiting[task.task_id] = incoming.waiting
        if incoming.fault is not None:
            self._put_fault(task, incoming.fault)

    def _stage_out(self, record: OutputRecord) -> None:
        task = self._store.tasks[record.file.task_id]
        moved = self._stager.want_out(task.task_id, task.spec, record.file)
        if moved.output is not None:
            with self._store.transaction():
                self._store.outputs.put(replace(record, file=moved.output, state=OutputState.MOVED))
        elif moved.waiting is not None:
            self.waiting[task.task_id] = moved.waiting
        elif moved.fault is not None and task.fault is None:
            self._put_fault(task, moved.fault)

    def _put_fault(self, task: TaskRecord, fault: str) -> None:
        with self._store.transaction():
            self._store.tasks.put(replace(task, error=fault, fault=fault))
