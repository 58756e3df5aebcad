"""The ledger kept in rows, driven in random order with duplicated and late messages."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import text
from support.control_world import MEMORY
from support.dispatcher import spec

from hpcpanda.dispatcher.store.codec import load_events
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.control import pause_task, resume_task, retry_task
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.expiry import sweep
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import cancel_task, get_task, submit_task
from hpcpanda.domain.errors import IllegalTransition
from hpcpanda.domain.exchange import (
    Capacity,
    EdgeRegistration,
    LeaseCommit,
    LeaseReturn,
    OutputFile,
    SyncReply,
    SyncRequest,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent, single_events
from hpcpanda.domain.states import TaskState

EVENTS = 40
TERMS = Terms(lease_seconds=100, edge_alive_seconds=1e9)
EDGES = ("alpha", "beta")
TASKS = (1, 2)
event_sets = st.sets(st.integers(0, EVENTS - 1), max_size=15).map(single_events)


class LedgerMachine(RuleBasedStateMachine):
    """Edges acquire, commit, return, renew, report and repeat themselves; users cancel, pause, resume and try again; time
    passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e9
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.database = self.open_database(Path(self.folder.name))
        self.store = Store(self.database)
        self.sent: list[tuple[str, SyncRequest]] = []
        self.owner_of: dict[tuple[int, int], tuple[int, str]] = {}
        self.accepted = dict.fromkeys(TASKS, EMPTY)
        self.outputs = 0
        self.first_epoch = dict.fromkeys(TASKS, 1)
        """Of the present try of each task."""
        self.runner.run(self._prepare())

    def open_database(self, folder: Path) -> Database:
        """A new one for every run."""
        raise NotImplementedError

    async def _prepare(self) -> None:
        await self.database.migrate()
        for edge in EDGES:
            registration = EdgeRegistration(instance=edge, cores=4)
            await register_edge(
                self.store.writing(), name=edge, registration=registration, terms=TERMS, now=self.now
            )
        for priority in (0, 1):
            await submit_task(
                self.store.writing(),
                spec=spec(EVENTS, priority=priority, max_failed=priority * 3),
                owner="ada",
                idempotency_key=None,
                now=self.now,
            )

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(edge=st.sampled_from(EDGES), cores=st.integers(1, 30), task=st.sampled_from((None, *TASKS)))
    def acquire(self, edge: str, cores: int, task: int | None) -> None:
        capacity = Capacity(instance=edge, cores=cores, seconds=1.0, task_id=task)
        uow = self.store.writing()
        grants = self.runner.run(acquire_work(uow, edge=edge, capacity=capacity, terms=TERMS, now=self.now))
        for lease in grants.leases:
            assert not lease.events & self.accepted[lease.task_id], "finished events were leased again"

    @rule(
        edge=st.sampled_from(EDGES),
        task=st.sampled_from((*TASKS, 99)),
        epoch=st.integers(1, 6),
        done=event_sets,
        failed=st.sets(st.integers(0, EVENTS - 1), max_size=1),
        returned=event_sets,
        renew=st.booleans(),
        error=st.sampled_from(("bad", MEMORY, "Stale file handle")),
    )
    def sync(
        self,
        edge: str,
        task: int,
        epoch: int,
        done: IntervalSet,
        failed: set[int],
        returned: IntervalSet,
        renew: bool,
        error: str,
    ) -> None:
        request = SyncRequest(
            instance=edge,
            renew=((task, epoch),) if renew else (),
            commits=(
                LeaseCommit(
                    task_id=task,
                    epoch=epoch,
                    done=done - single_events(failed),
                    failed=tuple(FailedEvent(event=e, error=error) for e in failed),
                    core_seconds=1.0,
                ),
            ),
            returns=(LeaseReturn(task_id=task, epoch=epoch, events=returned),),
        )
        self._send(edge, request)

    @rule(edge=st.sampled_from(EDGES), task=st.sampled_from(TASKS))
    def work_hard(self, edge: str, task: int) -> None:
        """Commit everything that the edge still holds of the task."""
        held = [
            LeaseCommit(task_id=task, epoch=epoch, done=outstanding, core_seconds=1.0)
            for epoch, holder, outstanding, _ in self._leases(task)
            if holder == edge
        ]
        self._send(edge, SyncRequest(instance=edge, commits=tuple(held)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A message arrives a second time, late and out of order."""
        self._send(*data.draw(st.sampled_from(self.sent)))

    @rule(edge=st.sampled_from(EDGES), task=st.sampled_from(TASKS), events=event_sets)
    def report_output(self, edge: str, task: int, events: IntervalSet) -> None:
        self.outputs += 1
        path = f"/out/{self.outputs}"
        output = OutputFile(task_id=task, path=path, manifest=path, events=events, digest="d", size=1)
        self._send(edge, SyncRequest(instance=edge, outputs=(output,)))

    @rule(seconds=st.integers(1, 150))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.runner.run(sweep(self.store.writing(), now=self.now))

    @precondition(lambda self: len(self.sent) > 12)
    @rule(task=st.sampled_from(TASKS))
    def cancel(self, task: int) -> None:
        if not self._task(task).state.final:
            uow = self.store.writing()
            self.runner.run(cancel_task(uow, task_id=task, caller="ada", now=self.now))

    @rule(task=st.sampled_from(TASKS), goes_on=st.booleans())
    def pause_or_resume(self, task: int, goes_on: bool) -> None:
        act = resume_task if goes_on else pause_task
        with contextlib.suppress(IllegalTransition):
            self.runner.run(act(self.store.writing(), task_id=task, caller="ada", now=self.now))

    @rule(task=st.sampled_from(TASKS))
    def try_again(self, task: int) -> None:
        """What is in no output is struck out and done again."""
        before = self._task(task).state
        with contextlib.suppress(IllegalTransition):
            self.runner.run(retry_task(self.store.writing(), task_id=task, caller="ada", now=self.now))
            if before.final:
                kept = self._merged(task)
                self.accepted[task] = kept
                owners = self.owner_of.items()
                self.owner_of = {k: v for k, v in owners if k[0] != task or k[1] in kept}
                self.first_epoch[task] = self._rows(
                    "SELECT first_epoch FROM tasks WHERE task_id = :task", task
                )[0].first_epoch

    @invariant()
    def every_event_is_in_one_account(self) -> None:
        for task_id in TASKS:
            self._check(task_id)

    def _check(self, task_id: int) -> None:
        task = self._task(task_id)
        counts = task.progress
        assert self._merged(task_id).issubset(self.accepted[task_id]), "an output holds what nobody committed"
        ready = self.runner.run(self._ready(task_id))
        leases = self._leases(task_id)
        accounts = [ready, *(part for lease in leases for part in lease[2:])]
        union = EMPTY
        for account in accounts:
            assert not union & account, "an event is in two accounts"
            union |= account
        assert counts.ready == len(ready)
        assert counts.leased == sum(len(lease[2]) for lease in leases)
        assert counts.done + counts.failed == sum(len(lease[3]) for lease in leases)
        assert counts.failed == self._count("failed_events", task_id)
        committed = EMPTY
        for lease in leases:
            committed |= lease[3]
        assert self.accepted[task_id] == committed, "an acknowledged event is not on record"
        if task.state.final:
            assert not ready
            assert counts.leased == 0
        else:
            assert union == IntervalSet.span(0, EVENTS), "an event is in no account"
        if task.state in (TaskState.MERGING, TaskState.DONE, TaskState.FINISHED):
            assert counts.done + counts.failed == EVENTS

    def _send(self, edge: str, request: SyncRequest) -> SyncReply:
        uow = self.store.writing()
        reply, _ = self.runner.run(sync_edge(uow, edge=edge, request=request, terms=TERMS, now=self.now))
        self.sent.append((edge, request))
        for result in reply.commits:
            assert not result.accepted & result.refused
            if result.accepted and result.epoch < self.first_epoch[result.task_id]:
                assert result.accepted.issubset(self._merged(result.task_id)), (
                    "a lease of an earlier try counts"
                )
            for r in result.accepted.ranges():
                for event in range(r.first, r.last):
                    by = self.owner_of.setdefault((result.task_id, event), (result.epoch, edge))
                    assert by == (result.epoch, edge), "an event was accepted from two leases"
            if result.accepted:
                holders = {lease[0]: lease[1] for lease in self._leases(result.task_id)}
                assert holders[result.epoch] == edge, "somebody else's lease was committed to"
                self.accepted[result.task_id] |= result.accepted
        return reply

    def _task(self, task_id: int):
        return self.runner.run(get_task(self.store.reading(), task_id=task_id, now=self.now))

    async def _ready(self, task_id: int) -> IntervalSet:
        async with self.store.reading() as uow:
            return await uow.ready.all_of(task_id)

    def _rows(self, query: str, task_id: int) -> list:
        async def run() -> list:
            async with self.database.read() as connection:
                return list(await connection.execute(text(query), {"task": task_id}))

        return self.runner.run(run())

    def _leases(self, task_id: int) -> list[tuple[int, str, IntervalSet, IntervalSet]]:
        query = "SELECT epoch, edge, outstanding, committed, is_open FROM leases WHERE task_id = :task"
        rows = self._rows(query, task_id)
        assert all(bool(row.is_open) == (row.outstanding != "[]") for row in rows)
        return [(r.epoch, r.edge, load_events(r.outstanding), load_events(r.committed)) for r in rows]

    def _merged(self, task_id: int) -> IntervalSet:
        """Events in recorded outputs: none is in two."""
        rows = self._rows("SELECT events FROM outputs WHERE task_id = :task", task_id)
        files = [load_events(row.events) for row in rows]
        merged = IntervalSet.of(r for events in files for r in events.ranges())
        assert len(merged) == sum(map(len, files)), "an event is in two outputs"
        return merged

    def _count(self, table: str, task_id: int) -> int:
        return self._rows(f"SELECT count(*) FROM {table} WHERE task_id = :task", task_id)[0][0]
