"""Routes for accounting."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query

from hpcpanda.dispatcher.context import ContextDep, TasksRead
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.usecases.accounting import report_usage
from hpcpanda.domain.usage import UsageBy, UsageTable

router = APIRouter(prefix="/v1/reports", tags=["reports"], route_class=StrictJsonRoute)

First = Annotated[date | None, Query(alias="from")]
Last = Annotated[date | None, Query(alias="to")]
Limit = Annotated[int, Query(ge=1, le=10_000)]


@router.get("/usage")
async def usage(
    caller: TasksRead,
    context: ContextDep,
    by: UsageBy = UsageBy.TASK,
    first: First = None,
    last: Last = None,
    limit: Limit = 1000,
) -> UsageTable:
    """Tell what tasks that the caller sees have used, in the last 30 days or from a day to a day."""
    return await report_usage(
        context.store.reading(),
        by=by,
        first=first,
        last=last,
        sight=caller.sight,
        limit=limit,
        now=context.clock(),
    )
