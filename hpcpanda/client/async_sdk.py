"""Talk to a dispatcher from asyncio."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from hpcpanda.client import calls
from hpcpanda.client.access import SUBMIT_PAUSES_S, TIMEOUT_S, authenticated, checked
from hpcpanda.client.calls import Call
from hpcpanda.client.credentials import trust
from hpcpanda.client.dataset_calls import AsyncDatasetMethods
from hpcpanda.client.stream import PATIENCE_S, Signal, async_signals, unreachable
from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.exchange import (
    MAX_EDGES,
    Capacity,
    EdgeInfo,
    EdgeRegistration,
    Grants,
    Health,
    SyncReply,
    SyncRequest,
)
from hpcpanda.domain.identity import NewToken, WhoAmI
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.task_views import Explanation, FailedEventPage, Outputs, Task, TaskPage
from hpcpanda.domain.usage import UsageBy, UsageTable

Answer = TypeVar("Answer")


class AsyncDispatcherClient(AsyncDatasetMethods):
    """A dispatcher, for asyncio. Use as an async context manager, or await :meth:`close`.

    Arguments, methods and errors are those of :class:`~hpcpanda.client.sdk.DispatcherClient`.
    """

    def __init__(
        self,
        url: str,
        token: str | httpx2.Auth | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        ca_file: Path | None = None,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx2.AsyncClient(
            base_url=checked(url), auth=authenticated(token), verify=trust(ca_file)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def health(self) -> Health:
        """Whether the dispatcher answers."""
        return await self._send(calls.health())

    async def whoami(self) -> WhoAmI:
        """Who the bearer of the token is."""
        return await self._send(calls.whoami())

    async def rotate_token(self) -> NewToken:
        """A new token in place of the one in use, which goes on for a while."""
        return await self._send(calls.rotate_token())

    async def submit(self, spec: TaskSpec, *, idempotency_key: str | None = None) -> Task:
        """Submit a task; a lost connection is tried again without submitting twice."""
        call = calls.submit(spec, idempotency_key or uuid.uuid4().hex)
        for pause_s in SUBMIT_PAUSES_S:
            try:
                return await self._send(call)
            except Unavailable:
                await asyncio.sleep(pause_s)
        return await self._send(call)

    async def tasks(
        self,
        *,
        state: TaskState | None = None,
        name: str | None = None,
        owner: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> TaskPage:
        """One page of tasks, newest first."""
        return await self._send(calls.tasks(state=state, name=name, owner=owner, limit=limit, after=after))

    async def task(self, task_id: int) -> Task:
        """One task."""
        return await self._send(calls.task(task_id))

    async def cancel(self, task_id: int) -> Task:
        """Abort a task."""
        return await self._send(calls.cancel(task_id))

    async def pause(self, task_id: int) -> Task:
        """Lease nothing more of a task until it is resumed."""
        return await self._send(calls.pause(task_id))

    async def resume(self, task_id: int) -> Task:
        """Go on with a paused task."""
        return await self._send(calls.resume(task_id))

    async def retry(self, task_id: int) -> Task:
        """Do again what is in no output of a task that is finished or has failed, or what came to its dataset since."""
        return await self._send(calls.retry(task_id))

    async def set_priority(self, task_id: int, priority: int) -> Task:
        """Give a task another priority."""
        return await self._send(calls.set_priority(task_id, priority))

    async def set_deadline(self, task_id: int, deadline: datetime | None) -> Task:
        """Give a task another deadline, or none."""
        return await self._send(calls.set_deadline(task_id, deadline))

    async def outputs(self, task_id: int) -> Outputs:
        """The merged files of a task."""
        return await self._send(calls.outputs(task_id))

    async def failures(self, task_id: int, *, after: int | None = None, limit: int = 100) -> FailedEventPage:
        """One page of a task's failed events, by number."""
        return await self._send(calls.failures(task_id, after=after, limit=limit))

    async def explain(self, task_id: int) -> Explanation:
        """Why a task is where it is."""
        return await self._send(calls.explain(task_id))

    async def usage(
        self,
        by: UsageBy = UsageBy.TASK,
        *,
        first: date | None = None,
        last: date | None = None,
        limit: int = 1000,
    ) -> UsageTable:
        """What was used in some days of UTC, the last 30 unless said otherwise."""
        return await self._send(calls.usage(by, first=first, last=last, limit=limit))

    def changes(self, *task_ids: int, patience_s: float = PATIENCE_S) -> AsyncGenerator[Signal]:
        """Signals as tasks change, of these or of all that one sees; without end. Close it when it is no longer
        wanted."""
        return async_signals(
            self._http, self._url, task_ids, timeout_s=self._timeout_s, patience_s=patience_s
        )

    async def edges(self) -> tuple[EdgeInfo, ...]:
        """Every edge that has registered, by name."""
        found = page = await self._send(calls.edges())
        while len(page) == MAX_EDGES:
            page = await self._send(calls.edges(after=page[-1].name))
            found += page
        return found

    async def register_edge(self, name: str, registration: EdgeRegistration) -> EdgeInfo:
        """Register an edge."""
        return await self._send(calls.register_edge(name, registration))

    async def acquire(self, name: str, capacity: Capacity) -> Grants:
        """Ask for work, waiting for it at most ``capacity.wait_s`` seconds."""
        return await self._send(calls.acquire(name, capacity))

    async def sync(self, name: str, request: SyncRequest) -> SyncReply:
        """Say everything an edge has to say; may be sent again after a lost answer."""
        return await self._send(calls.sync(name, request))

    async def _send(self, call: Call[Answer]) -> Answer:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                params=dict(call.params),
                headers=dict(call.headers),
                content=call.body,
                timeout=self._timeout_s + call.wait_s,
            )
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise unreachable(self._url, error) from error
        return call.read(response.status_code, response.content)
