"""The edge's round: look at the batch system, the heads and the journals; settle what has ended; plan; act; clean up."""

from __future__ import annotations

import time
from typing import Final

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda.planning.actions import Plan
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import Situation
from hpcpanda_edge.batch_watch import BatchWatch
from hpcpanda_edge.cleaning import Cleaning
from hpcpanda_edge.heads import Heads
from hpcpanda_edge.learning import Learner
from hpcpanda_edge.looking import Look
from hpcpanda_edge.outlook import Outlook, OutlookKeeper
from hpcpanda_edge.ports import SchedulerPort
from hpcpanda_edge.present_runs import PresentRuns
from hpcpanda_edge.quarantine import QuarantineKeeper
from hpcpanda_edge.settling import Settling
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.staging_steps import StagingSteps
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.submitting import Submitter
from hpcpanda_edge.usage import UsageKeeper
from hpcpanda_edge.view import situation
from hpcpanda_edge.windows.watch import WindowWatch

PLAN_S: Final = 2.0
"""A new plan is made no less often, for time passes; else only when something was looked at, or has changed."""
LOOKS_PER_S: Final = 50.0
"""Files of heads and journals looked at in a second, in the mean: a shared file system serves others too."""

_log = structlog.get_logger("hpcpanda.edge")


class Control:
    """One round after the other; each part of a round is one transaction."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        site: Site,
        scheduler: SchedulerPort,
        windows: WindowWatch,
        stager: Stager,
    ) -> None:
        runs = PresentRuns.after_start(store)
        self.store = store
        self.steps = Steps(store, spool, site)
        self.quarantine = QuarantineKeeper(spool, site)
        self.submitter = Submitter(store, self.steps, spool, scheduler, self.quarantine)
        self.learner = Learner(store, spool, site, time.time())
        self.usage = UsageKeeper(store, spool, site, time.time())
        self.statuses = runs.statuses
        """What the head of each allocation last said."""
        self.plan = Plan(actions=(), wants=())
        self.draining = False
        self._situation: Situation | None = None
        self._spool = spool
        self._site = site
        self._windows = windows
        self._batch = BatchWatch(store, self.steps, spool, site, scheduler, runs)
        self._heads = Heads(store, self.steps, spool, runs)
        self._settling = Settling(store, self.steps, spool, self.learner, runs)
        self._staging = StagingSteps(store, self.steps, stager)
        self._cleaning = Cleaning(store, spool, stager, runs)
        self._outlook = OutlookKeeper(StateFolder.of(spool.path).outlook)
        self._look_again = 0.0
        self._planned = 0.0
        self._planned_from: tuple[object, ...] | None = None

    async def round(self) -> None:
        """Do all there is to do now."""
        await self._batch.look()
        if looked := (now := time.monotonic()) >= self._look_again:
            await self._heads.read()
            await self._settling.look(self._heads.parts_over())
            self._look_again = now + self._files() / LOOKS_PER_S
        self._staging.look()
        if looked or now - self._planned >= PLAN_S or self._planned_from != self._changing():
            self.make_plan()
        self._learn(time.time())
        self.usage.look(self.statuses)
        self.usage.count(self.statuses, at_once=self.draining and self.idle)
        if self._outlook.due:
            self._outlook.write(self._make_outlook())
        self.submitter.write_messages()
        await self._cleaning.clean_up()

    def _files(self) -> int:
        """Files that a look at heads and journals has to do with."""
        unheard = (AllocationState.PLANNED, AllocationState.CLOSED)
        heads = sum(r.state not in unheard for r in self.store.allocations.values())
        return heads + sum(not j.closed for j in self.store.journals.values())

    def _changing(self) -> tuple[object, ...]:
        """What a plan depends on, but for the time and what heads, windows and learning say."""
        staged = dict(self.steps.staged)
        return self.store.changes, self.draining, self.submitter.not_before, staged

    def make_plan(self) -> None:
        """Work out what to do, and enter it."""
        self._planned_from = None
        if self.draining:
            with self.store.transaction():
                self.steps.drain()
        now = time.time()
        self._situation = situation(
            self.store,
            self.statuses,
            site=self._site,
            now=now,
            staged=self.steps.staged,
            windows=self._windows.known,
            windows_seen=None if (age_s := self._windows.age_s) is None else now - age_s,
            submit_not_before=self.submitter.not_before,
            draining=self.draining,
            predictions=self.learner.predictions(now),
        )
        self.plan = make_plan(self._situation)
        self._outlook.note(self.plan, now)
        if self.plan.actions:
            with self.store.transaction():
                self.steps.act(self.plan.actions, now)
            for action in self.plan.actions:
                _log.debug("planned", action=action)
        self._planned, self._planned_from = time.monotonic(), self._changing()

    def _learn(self, now: float) -> None:
        """Learn from what has become of allocations, and keep it now and then, at the end of a drain at once."""
        self.learner.look(self.statuses, now)
        self.learner.save(now, at_once=self.draining and self.idle)

    def _make_outlook(self) -> Outlook:
        """For `status` and `explain`: what only this process knows."""
        now = time.time()
        return Outlook(
            written=now,
            windows=self._windows.known,
            windows_unknown=self._windows.unknown,
            windows_seen=None if (age_s := self._windows.age_s) is None else now - age_s,
            submit_not_before=self.submitter.not_before,
            refusal=self.submitter.refusal,
            draining=self.draining,
            staged=self.steps.staged,
            staging=self._staging.waiting,
            given_back=self._outlook.given_back,
        )

    def look(self) -> Look | None:
        """Where things were when the last plan was made; None before the first."""
        if self._situation is None:
            return None
        return Look(
            site=self._site,
            spool=self._spool,
            store=self.store,
            running=True,
            now=self._situation.now,
            outlook=self._make_outlook(),
            statuses=self.statuses,
            situation=self._situation,
            plan=self.plan,
            knowledge=self.learner.knowledge,
        )

    @property
    def open_allocations(self) -> int:
        """Allocations that are planned, queued, running, or not settled yet."""
        return sum(r.state is not AllocationState.CLOSED for r in self.store.allocations.values())

    @property
    def idle(self) -> bool:
        """Whether no allocation is left."""
        return not self.open_allocations
