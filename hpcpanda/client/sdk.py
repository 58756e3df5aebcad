"""Talk to a dispatcher from Python; :mod:`hpcpanda.client.async_sdk` does it for asyncio.

Errors are those of :mod:`hpcpanda.domain.errors`, the same classes that the dispatcher raised; a
dispatcher that cannot be reached is :class:`~hpcpanda.domain.errors.Unavailable`. Submitting is
tried again by itself, since it is safe; everything else is left to the caller.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from hpcpanda.client import calls
from hpcpanda.client.access import SUBMIT_PAUSES_S, TIMEOUT_S, authenticated, checked
from hpcpanda.client.calls import Call
from hpcpanda.client.credentials import trust
from hpcpanda.client.dataset_calls import DatasetMethods
from hpcpanda.client.stream import PATIENCE_S, Signal, signals, unreachable
from hpcpanda.domain.control import Lifted, Quarantine
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
from hpcpanda.domain.identity import AuditPage, IdentityProvider, NewToken, Revoked, WhoAmI
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.task_views import Explanation, FailedEventPage, Outputs, Task, TaskPage
from hpcpanda.domain.usage import UsageBy, UsageTable

Answer = TypeVar("Answer")


class DispatcherClient(DatasetMethods):
    """A dispatcher, for plain code. Use as a context manager, or call :meth:`close`.

    Args:
        url: base URL, as in the dispatcher's ``url`` file.
        token: bearer token of a user or an edge, or what shows one with every request.
        timeout_s: how long an answer may take; the time an edge is willing to wait for work is added.
        ca_file: certificates (PEM) to believe; those of the system when not given.

    Raises:
        InvalidValue: the URL or the token is none.

    Every method raises :class:`~hpcpanda.domain.errors.Unavailable` when the dispatcher cannot be
    reached, and ``Unauthenticated`` or ``Forbidden`` when the token does not do.
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
        self._http = httpx2.Client(base_url=checked(url), auth=authenticated(token), verify=trust(ca_file))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def health(self) -> Health:
        """Whether the dispatcher answers."""
        return self._send(calls.health())

    def identity_provider(self) -> IdentityProvider:
        """Where users log in. Raises NotFound when nobody logs in with a command line."""
        return self._send(calls.identity_provider())

    def whoami(self) -> WhoAmI:
        """Who the bearer of the token is."""
        return self._send(calls.whoami())

    def rotate_token(self) -> NewToken:
        """A new token in place of the one in use, which goes on for a while.

        Raises:
            Conflict: the token in use does not end.
            Forbidden: it is not the dispatcher's own.
        """
        return self._send(calls.rotate_token())

    def audit(self, *, who: str | None = None, before: int | None = None, limit: int = 100) -> AuditPage:
        """One page of the audit log, newest first. For administrators."""
        return self._send(calls.audit(who=who, before=before, limit=limit))

    def revoke_tokens(self, kind: str, name: str) -> Revoked:
        """Take back all tokens of a user or an edge. For administrators."""
        return self._send(calls.revoke_tokens(kind, name))

    def quarantines(self) -> tuple[Quarantine, ...]:
        """Sites, and nodes of sites, that are given nothing now. For administrators."""
        return self._send(calls.quarantines())

    def lift_quarantine(self, edge: str, *, node: str | None = None) -> Lifted:
        """Give a site work again that was given none since too much failed by its own fault, and use all its nodes again; or
        use one node again. For administrators.

        Raises:
            NotFound: no such edge has registered, or nothing is known against that node.
        """
        return self._send(calls.lift_quarantine(edge, node))

    def submit(self, spec: TaskSpec, *, idempotency_key: str | None = None) -> Task:
        """Submit a task; a lost connection is tried again without submitting twice.

        Raises:
            InvalidValue: a field of the specification is wrong.
            Conflict: the key was used before for another specification.
        """
        call = calls.submit(spec, idempotency_key or uuid.uuid4().hex)
        for pause_s in SUBMIT_PAUSES_S:
            try:
                return self._send(call)
            except Unavailable:
                time.sleep(pause_s)
        return self._send(call)

    def tasks(
        self,
        *,
        state: TaskState | None = None,
        name: str | None = None,
        owner: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> TaskPage:
        """One page of tasks, newest first; pass ``next_after`` of a page as ``after`` for the next."""
        return self._send(calls.tasks(state=state, name=name, owner=owner, limit=limit, after=after))

    def task(self, task_id: int) -> Task:
        """One task. Raises NotFound when there is none."""
        return self._send(calls.task(task_id))

    def cancel(self, task_id: int) -> Task:
        """Abort a task.

        Raises:
            NotFound: there is no such task.
            Forbidden: it is somebody else's.
            IllegalTransition: it has come to another end.
        """
        return self._send(calls.cancel(task_id))

    def pause(self, task_id: int) -> Task:
        """Lease nothing more of a task until it is resumed; a second time changes nothing.

        Raises:
            NotFound: there is no such task.
            Forbidden: it is somebody else's.
            IllegalTransition: it has ended, or is merging.
        """
        return self._send(calls.pause(task_id))

    def resume(self, task_id: int) -> Task:
        """Go on with a paused task. Raises what :meth:`pause` raises."""
        return self._send(calls.resume(task_id))

    def retry(self, task_id: int) -> Task:
        """Do again what is in no output of a task that is finished or has failed, or what came to its dataset since.

        Raises:
            NotFound: there is no such task.
            Forbidden: it is somebody else's.
            IllegalTransition: it is done with nothing more to read, or was aborted.
        """
        return self._send(calls.retry(task_id))

    def set_priority(self, task_id: int, priority: int) -> Task:
        """Give a task another priority. Raises what :meth:`pause` raises, and InvalidValue."""
        return self._send(calls.set_priority(task_id, priority))

    def set_deadline(self, task_id: int, deadline: datetime | None) -> Task:
        """Give a task another deadline, or none. Raises what :meth:`pause` raises, and InvalidValue."""
        return self._send(calls.set_deadline(task_id, deadline))

    def outputs(self, task_id: int) -> Outputs:
        """The merged files of a task. Raises NotFound when there is no such task."""
        return self._send(calls.outputs(task_id))

    def failures(self, task_id: int, *, after: int | None = None, limit: int = 100) -> FailedEventPage:
        """One page of a task's failed events, by number. Raises NotFound when there is no such task."""
        return self._send(calls.failures(task_id, after=after, limit=limit))

    def explain(self, task_id: int) -> Explanation:
        """Why a task is where it is. Raises NotFound when there is no such task."""
        return self._send(calls.explain(task_id))

    def usage(
        self,
        by: UsageBy = UsageBy.TASK,
        *,
        first: date | None = None,
        last: date | None = None,
        limit: int = 1000,
    ) -> UsageTable:
        """What was used in some days of UTC, the last 30 unless said otherwise."""
        return self._send(calls.usage(by, first=first, last=last, limit=limit))

    def changes(self, *task_ids: int, patience_s: float = PATIENCE_S) -> Generator[Signal]:
        """Signals as tasks change, of these or of all that one sees; without end. Each says "look again". Named tasks
        are told of at once. A lost connection is made again, and goes on where it was.

        Raises:
            Unavailable: the dispatcher was away for longer than ``patience_s``.
            NotFound: none of the named tasks is there, or none that one may see.
        """
        return signals(self._http, self._url, task_ids, timeout_s=self._timeout_s, patience_s=patience_s)

    def edges(self) -> tuple[EdgeInfo, ...]:
        """Every edge that has registered, by name."""
        found = page = self._send(calls.edges())
        while len(page) == MAX_EDGES:
            page = self._send(calls.edges(after=page[-1].name))
            found += page
        return found

    def register_edge(self, name: str, registration: EdgeRegistration) -> EdgeInfo:
        """Register an edge. Raises EdgeNameTaken when another living one has the name."""
        return self._send(calls.register_edge(name, registration))

    def acquire(self, name: str, capacity: Capacity) -> Grants:
        """Ask for work, waiting for it at most ``capacity.wait_s`` seconds.

        Raises:
            NotFound: the edge is not registered.
            EdgeNameTaken: another instance has taken its name.
        """
        return self._send(calls.acquire(name, capacity))

    def sync(self, name: str, request: SyncRequest) -> SyncReply:
        """Say everything an edge has to say; may be sent again after a lost answer.

        Raises:
            NotFound: the edge is not registered.
            EdgeNameTaken: another instance has taken its name.
        """
        return self._send(calls.sync(name, request))

    def _send(self, call: Call[Answer]) -> Answer:
        try:
            response = self._http.request(
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
