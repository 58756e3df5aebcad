"""A look at an edge from a second process, by what it has written: the plan it would make now, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda.planning.actions import Plan
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import Situation
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda_edge.files import StatusReader
from hpcpanda_edge.learning import predict, read_knowledge
from hpcpanda_edge.outlook import Outlook, read_outlook
from hpcpanda_edge.records import AllocationRecord
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where things are at an edge."""

    site: Site
    spool: Spool
    store: Store
    running: bool
    """An edge runs over the spool now."""
    now: float
    outlook: Outlook | None
    """What the running edge has left; None when there is none."""
    statuses: dict[str, AllocationStatus]
    situation: Situation
    plan: Plan
    knowledge: Knowledge
    """What the edge has learnt, as it last wrote it."""

    @property
    def open_allocations(self) -> list[AllocationRecord]:
        """Allocations of which not all is settled."""
        return [a for a in self.store.allocations.values() if a.state is not AllocationState.CLOSED]


def look(site: Site, store: Store, *, running: bool, now: float) -> Look:
    """Look at the edge over the site's spool; nothing is changed."""
    spool = Spool(Path(site.spool))
    outlook = read_outlook(StateFolder.of(site.spool).outlook, now) if running else None
    open_ = [a.allocation_id for a in store.allocations.values() if a.state is not AllocationState.CLOSED]
    read = StatusReader(spool).read(open_)
    statuses = {s.allocation_id: s for s in read if store.allocations[s.allocation_id].hears(s)}
    knowledge = read_knowledge(store, now)
    seen = situation(
        store,
        statuses,
        site=site,
        now=now,
        staged=outlook.staged if outlook is not None else None,
        windows=outlook.windows_at(now) if outlook is not None else None,
        windows_seen=outlook.windows_seen if outlook is not None else None,
        submit_not_before=outlook.submit_not_before if outlook is not None else 0.0,
        draining=outlook is not None and outlook.draining,
        predictions=predict(knowledge, store, site, now),
    )
    return Look(
        site=site,
        spool=spool,
        store=store,
        running=running,
        now=now,
        outlook=outlook,
        statuses=statuses,
        situation=seen,
        plan=make_plan(seen),
        knowledge=knowledge,
    )
