"""How much there is of everything: for operators, in few queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.tables import edges, tasks
from hpcpanda.domain.states import TaskState

PLACES = ("ready", "leased", "done", "failed")
"""Where the events, or jobs, of a task can be."""
_OPEN = [state for state in TaskState if not state.final]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the database holds."""

    tasks: Mapping[str, int]
    """By state, without those put away."""
    events: Mapping[str, int]
    """Events and jobs of tasks that are not final, by where they are."""
    edges_alive: int
    edges: int


async def count_all(connection: AsyncConnection, *, alive_since: float) -> Figures:
    """Count. Tasks that have come to an end are counted in an index only."""
    t = tasks.c
    states = select(t.state, func.count().label("number")).group_by(t.state)
    places = select(*(func.coalesce(func.sum(t[place]), 0) for place in PLACES)).where(t.state.in_(_OPEN))
    living = func.count().filter(edges.c.last_seen >= alive_since)
    by_state = {row.state: row.number for row in await connection.execute(states)}
    events = (await connection.execute(places)).one()
    alive, registered = (await connection.execute(select(living, func.count()).select_from(edges))).one()
    return Figures(
        tasks={state: by_state.get(state, 0) for state in TaskState},
        events={place: int(count) for place, count in zip(PLACES, events, strict=True)},
        edges_alive=alive,
        edges=registered,
    )
