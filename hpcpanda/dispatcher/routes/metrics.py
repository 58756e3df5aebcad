"""Route for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from hpcpanda.dispatcher.context import ContextDep, MetricsRead
from hpcpanda.dispatcher.limits import StrictJsonRoute

router = APIRouter(tags=["reports"], route_class=StrictJsonRoute)


class MetricsPage(Response):
    """Figures in Prometheus' text format."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4


@router.get("/metrics", response_class=MetricsPage)
async def metrics(_: MetricsRead, context: ContextDep) -> MetricsPage:
    """Give all figures of this dispatcher."""
    context.metrics.waiting.set(context.bell.waiting)
    alive_since = context.clock() - context.terms.edge_alive_seconds
    return MetricsPage(await context.metrics.page(context.database, alive_since=alive_since))
