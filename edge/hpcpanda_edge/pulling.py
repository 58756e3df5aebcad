"""Pulling work: ask the dispatcher for what the last plan wants, and enter what it gives."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from hpcpanda.domain.exchange import Capacity
from hpcpanda.planning.actions import GiveBack, Lane, Plan, Want
from hpcpanda_edge import accounts
from hpcpanda_edge.beginning_again import ask_anew, begin_again
from hpcpanda_edge.connection import Connection
from hpcpanda_edge.control import Control
from hpcpanda_edge.loops import Bells, retried, rings

LONG_POLL_S: Final = 20.0
"""How long the dispatcher may wait for work to give."""
_LONGEST_PAUSE_S: Final = 30.0
_EMPTY_PAUSE_S: Final = 1.0
_LONGER_S: Final = 10.0
"""Room for jobs that may last so much longer is worth a question of its own."""

_LANES: Final[tuple[Lane, ...]] = (None, "events", "jobs", "urgent")
"""Asks of each kind wait at the dispatcher beside those of the others."""

_log = structlog.get_logger("hpcpanda.edge")


class Pulling:
    """The loops that ask for work."""

    def __init__(self, control: Control, connection: Connection, bells: Bells, *, instance: str) -> None:
        self._control = control
        self._connection = connection
        self._bells = bells
        self._instance = instance
        self._asked: dict[Lane, Want] = {}
        """The question of each lane that is open."""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin all loops."""
        for lane in _LANES:
            group.create_task(self._pull(lane, beside=False), name=f"edge-pull-{lane}")
            group.create_task(self._pull(lane, beside=True), name=f"edge-pull-{lane}-beside")
        group.create_task(self._top_up(), name="edge-top-up")

    async def _pull(self, lane: Lane, *, beside: bool) -> None:
        """Ask for work of a lane whenever there is room for it; the dispatcher holds the answer back until there is
        some.

        ``beside``: ask only while a question is open that was asked when there was less room. That one cannot be taken
        back, for its answer may be on the way; but a job that fits only now must not wait for it.
        """
        useless = 0
        while True:
            plan = await self._next_plan()
            want = next((w for w in plan.wants if w.task_id is None and w.lane == lane), None)
            if want is None or self._control.draining or self._control.submitter.troubled:
                continue
            asked = self._asked.get(lane)
            if beside and (asked is None or not outgrown(asked, want)):
                continue
            if not beside:
                self._asked[lane] = want
            try:
                got = await self._fetch(want, wait_s=LONG_POLL_S)
            finally:
                if not beside:
                    del self._asked[lane]
            if not got:
                continue
            returned = any(isinstance(action, GiveBack) for action in self._control.plan.actions)
            useless = useless + 1 if returned else 0
            if useless:
                await self._pause(min(2.0**useless, _LONGEST_PAUSE_S))

    async def _pause(self, seconds: float) -> None:
        """What is offered cannot be used now: do not ask for it again and again, until an allocation has ended."""
        self._bells.eased.clear()
        await rings(self._bells.eased, within_s=seconds)

    async def _top_up(self) -> None:
        """Fetch more work for packs that will soon have none."""
        empty: dict[int, float] = {}
        while True:
            for want in (await self._next_plan()).wants:
                if want.task_id is None or self._control.draining:
                    continue
                if time.monotonic() < empty.get(want.task_id, 0.0):
                    continue
                if not await self._fetch(want, wait_s=0.0):
                    empty[want.task_id] = time.monotonic() + _EMPTY_PAUSE_S

    async def _next_plan(self) -> Plan:
        """The plan of the next round."""
        self._bells.planned.clear()
        await self._bells.planned.wait()
        return self._control.plan

    async def _fetch(self, want: Want, *, wait_s: float) -> int:
        """Ask for what a plan wants; gives the number of events and jobs that came."""
        capacity = Capacity(
            instance=self._instance,
            cores=want.cores,
            seconds=want.seconds,
            task_id=want.task_id,
            only=want.only,
            room=want.room,
            without=want.without,
            above=want.above,
            wait_s=wait_s,
        )
        grants = await self._connection.acquire(capacity)
        if not grants.leases:
            return 0
        events = 0
        store, steps = self._control.store, self._control.steps
        with retried("grant-not-kept"):
            with store.transaction():
                for grant in grants.leases:
                    begin_again(store, steps, grant.task_id, grant.first_epoch)
                    ask_anew(store, steps, grant)
                events = accounts.take_grants(store, grants)
            _log.info("leased", events=events, tasks=sorted({g.task_id for g in grants.leases}))
            self._control.make_plan()
        self._bells.wake.set()
        return events


def outgrown(asked: Want, want: Want) -> bool:
    """Whether jobs fit now that did not when the first was asked: on more nodes, or for clearly longer."""
    if want.room is None:
        return False
    room = asked.room
    return room is None or want.room.nodes > room.nodes or want.room.seconds > room.seconds + _LONGER_S
