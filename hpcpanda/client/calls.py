"""Every call of the REST API as a value: what to send, and how to read the answer.

Both clients send these; neither knows a path or a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from hpcpanda.domain.control import Lifted, NewDeadline, NewPriority, Quarantine
from hpcpanda.domain.errors import HpcPandaError, InvalidValue, Unavailable
from hpcpanda.domain.exchange import (
    Capacity,
    EdgeInfo,
    EdgeRegistration,
    Grants,
    Health,
    Problem,
    SyncReply,
    SyncRequest,
)
from hpcpanda.domain.identity import AuditPage, IdentityProvider, NewToken, Revoked, WhoAmI
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.task_views import Explanation, FailedEventPage, Outputs, Task, TaskPage
from hpcpanda.domain.usage import UsageBy, UsageTable

Answer = TypeVar("Answer")

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Answer]):
    """One request, and the type of its answer."""

    method: str
    path: str
    answer: Any
    """Type of the answer's body."""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait_s: float = 0.0
    """How long the dispatcher may hold the answer back."""

    def read(self, status: int, content: bytes) -> Answer:
        """The answer, or the error that it stands for.

        Raises:
            HpcPandaError: the class that the dispatcher raised.
            Unavailable: the answer is not one of a dispatcher.
        """
        if status >= 300:
            raise _error(status, content)
        try:
            answer: Answer = _adapter(self.answer).validate_json(content)
        except ValidationError as error:
            raise Unavailable(
                f"the answer to {self.method} {self.path} is not understood: {error}"
            ) from error
        return answer


def health() -> Call[Health]:
    """Whether the dispatcher answers."""
    return Call(method="GET", path="/v1/health", answer=Health)


def identity_provider() -> Call[IdentityProvider]:
    """Where the command line logs in."""
    return Call(method="GET", path="/v1/auth/provider", answer=IdentityProvider)


def whoami() -> Call[WhoAmI]:
    """Who the caller is."""
    return Call(method="GET", path="/v1/auth/whoami", answer=WhoAmI)


def rotate_token() -> Call[NewToken]:
    """Exchange the caller's token."""
    return Call(method="POST", path="/v1/auth/rotate", answer=NewToken)


def audit(*, who: str | None, before: int | None, limit: int) -> Call[AuditPage]:
    """Read the audit log."""
    params = _params(who=who, before=before, limit=limit)
    return Call(method="GET", path="/v1/admin/audit", params=params, answer=AuditPage)


def revoke_tokens(kind: str, name: str) -> Call[Revoked]:
    """Take tokens back."""
    path = f"/v1/admin/tokens/{quote(kind, safe='')}/{quote(name, safe='')}"
    return Call(method="DELETE", path=path, answer=Revoked)


def quarantines() -> Call[tuple[Quarantine, ...]]:
    """List what is in quarantine."""
    return Call(method="GET", path="/v1/admin/quarantine", answer=tuple[Quarantine, ...])


def lift_quarantine(edge: str, node: str | None) -> Call[Lifted]:
    """Give a site, or a node of one, work again."""
    path = f"/v1/admin/quarantine/{quote(edge, safe='')}"
    return Call(method="DELETE", path=path, params=_params(node=node), answer=Lifted)


def submit(spec: TaskSpec, idempotency_key: str) -> Call[Task]:
    """Submit a task."""
    headers = {**_JSON, "Idempotency-Key": idempotency_key}
    body = _adapter(TaskSpec).dump_json(spec)
    return Call(method="POST", path="/v1/tasks", headers=headers, body=body, answer=Task)


def tasks(
    *, state: TaskState | None, name: str | None, owner: str | None, limit: int, after: int | None
) -> Call[TaskPage]:
    """List tasks."""
    params = _params(state=state, name=name, owner=owner, limit=limit, after=after)
    return Call(method="GET", path="/v1/tasks", params=params, answer=TaskPage)


def task(task_id: int) -> Call[Task]:
    """Look at a task."""
    return Call(method="GET", path=f"/v1/tasks/{task_id}", answer=Task)


def cancel(task_id: int) -> Call[Task]:
    """Abort a task."""
    return Call(method="POST", path=f"/v1/tasks/{task_id}/cancel", answer=Task)


def pause(task_id: int) -> Call[Task]:
    """Lease nothing more of a task."""
    return Call(method="POST", path=f"/v1/tasks/{task_id}/pause", answer=Task)


def resume(task_id: int) -> Call[Task]:
    """Go on with a paused task."""
    return Call(method="POST", path=f"/v1/tasks/{task_id}/resume", answer=Task)


def retry(task_id: int) -> Call[Task]:
    """Do again what is in no output of a task that has ended."""
    return Call(method="POST", path=f"/v1/tasks/{task_id}/retry", answer=Task)


def set_priority(task_id: int, priority: int) -> Call[Task]:
    """Give a task another priority."""
    body = _adapter(NewPriority).dump_json(NewPriority(priority=priority))
    return Call(method="PUT", path=f"/v1/tasks/{task_id}/priority", headers=_JSON, body=body, answer=Task)


def set_deadline(task_id: int, deadline: datetime | None) -> Call[Task]:
    """Give a task another deadline, or none."""
    body = _adapter(NewDeadline).dump_json(NewDeadline(deadline=deadline))
    return Call(method="PUT", path=f"/v1/tasks/{task_id}/deadline", headers=_JSON, body=body, answer=Task)


def outputs(task_id: int) -> Call[Outputs]:
    """List the merged files of a task."""
    return Call(method="GET", path=f"/v1/tasks/{task_id}/outputs", answer=Outputs)


def failures(task_id: int, *, after: int | None, limit: int) -> Call[FailedEventPage]:
    """List the failed events of a task."""
    params = _params(after=after, limit=limit)
    return Call(method="GET", path=f"/v1/tasks/{task_id}/failures", params=params, answer=FailedEventPage)


def explain(task_id: int) -> Call[Explanation]:
    """Ask why a task is where it is."""
    return Call(method="GET", path=f"/v1/tasks/{task_id}/explain", answer=Explanation)


def usage(by: UsageBy, *, first: date | None, last: date | None, limit: int) -> Call[UsageTable]:
    """Ask what was used."""
    params = _params(by=by, **{"from": first, "to": last}, limit=limit)
    return Call(method="GET", path="/v1/reports/usage", params=params, answer=UsageTable)


def changes() -> Call[None]:
    """Follow the change stream."""
    return Call(method="GET", path="/v1/changes", answer=None)


def edges(*, after: str = "") -> Call[tuple[EdgeInfo, ...]]:
    """List edges by name, at most ``MAX_EDGES`` behind a name."""
    params = _params(after=after or None)
    return Call(method="GET", path="/v1/edges", params=params, answer=tuple[EdgeInfo, ...])


def register_edge(name: str, registration: EdgeRegistration) -> Call[EdgeInfo]:
    """Register an edge."""
    body = _adapter(EdgeRegistration).dump_json(registration)
    return Call(method="PUT", path=_edge(name), headers=_JSON, body=body, answer=EdgeInfo)


def acquire(name: str, capacity: Capacity) -> Call[Grants]:
    """Ask for work."""
    body = _adapter(Capacity).dump_json(capacity)
    path = f"{_edge(name)}/leases"
    return Call(method="POST", path=path, headers=_JSON, body=body, answer=Grants, wait_s=capacity.wait_s)


def sync(name: str, request: SyncRequest) -> Call[SyncReply]:
    """Say everything an edge has to say."""
    body = _adapter(SyncRequest).dump_json(request)
    return Call(method="POST", path=f"{_edge(name)}/sync", headers=_JSON, body=body, answer=SyncReply)


def _edge(name: str) -> str:
    return f"/v1/edges/{quote(name, safe='')}"


def _params(**values: str | int | date | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - any type has an adapter
    return TypeAdapter(kind)


def _error(status: int, content: bytes) -> HpcPandaError:
    """The error that an answer stands for."""
    try:
        problem: Problem = _adapter(Problem).validate_json(content)
    except ValidationError:
        text = content[:200].decode(errors="replace")
        return Unavailable(f"HTTP status {status}, and not from a dispatcher: {text}")
    kind = _kinds().get(problem.code, HpcPandaError)
    if kind is InvalidValue:
        field_name, colon, rest = problem.detail.partition(": ")
        return InvalidValue(field_name, rest) if colon else InvalidValue("request", problem.detail)
    return kind(problem.detail)


@cache
def _kinds() -> Mapping[str, type[HpcPandaError]]:
    return {kind.code: kind for kind in _below(HpcPandaError)}


def _below(kind: type[HpcPandaError]) -> list[type[HpcPandaError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == HpcPandaError.__module__]
    return [each for child in children for each in (child, *_below(child))]
