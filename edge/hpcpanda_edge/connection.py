"""The edge's line to the dispatcher: it has a name there, and every call is made until it is answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

import hpcpanda
from hpcpanda.domain.errors import EdgeNameTaken, HpcPandaError, NotFound, Unavailable
from hpcpanda.domain.exchange import (
    MAX_UPDATES,
    Capacity,
    EdgeInfo,
    EdgeRegistration,
    Grants,
    SyncReply,
    SyncRequest,
)
from hpcpanda.domain.site import Site
from hpcpanda_edge.ports import DispatcherPort

NAME_PATIENCE_S: Final = 150.0
"""How long an edge waits for its name to become free."""
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 30.0

T = TypeVar("T")

_log = structlog.get_logger("hpcpanda.edge")


class Connection:
    """Calls of the dispatcher, each made again while it is away, and after a new registration when it has forgotten us.

    Args:
        dispatcher: who is called.
        site: the edge's.
        instance: of this edge.
        name_pace_s: time between two tries to get a name that is taken.
        name_patience_s: how long to try.
    """

    def __init__(
        self,
        dispatcher: DispatcherPort,
        site: Site,
        *,
        instance: str,
        name_pace_s: float,
        name_patience_s: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._site = site
        self._instance = instance
        self._name_pace_s = name_pace_s
        self._name_patience_s = name_patience_s
        self._away_since: float | None = None
        self.lease_s = 60.0
        """Leases last so long without a renewal, as the dispatcher said."""

    async def register(self, held: tuple[tuple[int, int], ...] | None = None) -> None:
        """Introduce this edge. ``held``, at its start: the leases it knows of, since an answer with others may have been
        lost with the process before.

        Raises:
            EdgeNameTaken: another living edge keeps the name.
            HpcPandaError: the dispatcher refuses this edge, for instance its token.
        """
        registration = EdgeRegistration(
            instance=self._instance,
            cores=self._site.node_limit * self._site.nodes.cores,
            version=hpcpanda.__version__,
            held=held if held is None or len(held) <= MAX_UPDATES else None,
            architecture=self._site.architecture,
            tags=self._site.tags,
        )
        give_up = time.monotonic() + self._name_patience_s
        while True:
            try:
                info: EdgeInfo = await self._patiently(
                    lambda: self._dispatcher.register_edge(self._site.name, registration)
                )
            except EdgeNameTaken as problem:
                if time.monotonic() > give_up:
                    raise EdgeNameTaken(
                        f"{problem}; or give this one another name in its site file"
                    ) from None
                _log.warning("edge-name-taken", error=str(problem))
                await asyncio.sleep(self._name_pace_s)
                continue
            self.lease_s = info.lease_seconds
            _log.info("edge-registered", name=info.name, lease_seconds=info.lease_seconds)
            return

    async def acquire(self, capacity: Capacity) -> Grants:
        """Ask for work. Raises as :meth:`register`."""
        return await self._registered(lambda: self._dispatcher.acquire(self._site.name, capacity))

    async def sync(self, request: SyncRequest) -> SyncReply:
        """Say everything there is to say. Raises as :meth:`register`."""
        return await self._registered(lambda: self._dispatcher.sync(self._site.name, request))

    async def sync_once(self, request: SyncRequest) -> SyncReply:
        """Say it without trying again.

        Raises:
            HpcPandaError: the dispatcher is away, or refuses.
        """
        return await self._dispatcher.sync(self._site.name, request)

    async def _registered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call; register again when the dispatcher does not know this edge any more."""
        while True:
            try:
                return await self._patiently(call)
            except (NotFound, EdgeNameTaken) as problem:
                _log.warning("registration-lost", error=str(problem))
                await self.register()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call again and again while the dispatcher is away."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = await call()
            except HpcPandaError as problem:
                if not isinstance(problem, Unavailable) and type(problem) is not HpcPandaError:
                    raise
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    _log.warning("dispatcher-away", error=str(problem))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if self._away_since is not None:
                _log.info("dispatcher-back", seconds=round(time.monotonic() - self._away_since, 1))
                self._away_since = None
            return answer
