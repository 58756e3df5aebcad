"""Route for watchdogs."""

from __future__ import annotations

from fastapi import APIRouter

from hpcpanda import __version__
from hpcpanda.dispatcher.context import Anyone, ContextDep
from hpcpanda.domain.exchange import Health

router = APIRouter(prefix="/v1/health", tags=["health"])


@router.get("")
async def health(_: Anyone, context: ContextDep) -> Health:
    """Tell that the dispatcher and its database answer."""
    await context.database.check()
    return Health(version=__version__)
