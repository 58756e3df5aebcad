"""Routes for users: what they do to tasks."""

from __future__ import annotations

from fastapi import APIRouter

from hpcpanda.dispatcher.context import ContextDep, TaskId, TasksWrite
from hpcpanda.dispatcher.identity.scopes import Scope
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.usecases.control import (
    pause_task,
    resume_task,
    retry_task,
    set_deadline,
    set_priority,
)
from hpcpanda.domain.control import NewDeadline, NewPriority
from hpcpanda.domain.task_views import Task

router = APIRouter(prefix="/v1/tasks", tags=["tasks"], route_class=StrictJsonRoute)


@router.post("/{task_id}/pause")
async def pause(task_id: TaskId, caller: TasksWrite, context: ContextDep) -> Task:
    """Lease nothing more of a task of one's own until it is resumed."""
    anyone = Scope.ADMIN in caller.scopes
    return await pause_task(
        context.store.writing(), task_id=task_id, caller=caller.name, anyone=anyone, now=context.clock()
    )


@router.post("/{task_id}/resume")
async def resume(task_id: TaskId, caller: TasksWrite, context: ContextDep) -> Task:
    """Go on with a paused task of one's own."""
    anyone = Scope.ADMIN in caller.scopes
    task = await resume_task(
        context.store.writing(), task_id=task_id, caller=caller.name, anyone=anyone, now=context.clock()
    )
    context.bell.ring()
    return task


@router.post("/{task_id}/retry")
async def retry(task_id: TaskId, caller: TasksWrite, context: ContextDep) -> Task:
    """Do again what is in no output of a task of one's own that is finished or has failed, or what came to its dataset since."""
    anyone = Scope.ADMIN in caller.scopes
    task = await retry_task(
        context.store.writing(), task_id=task_id, caller=caller.name, anyone=anyone, now=context.clock()
    )
    context.bell.ring()
    return task


@router.put("/{task_id}/priority")
async def priority(task_id: TaskId, new: NewPriority, caller: TasksWrite, context: ContextDep) -> Task:
    """Give a task of one's own another priority."""
    return await set_priority(
        context.store.writing(),
        task_id=task_id,
        priority=new.priority,
        caller=caller.name,
        anyone=Scope.ADMIN in caller.scopes,
        now=context.clock(),
    )


@router.put("/{task_id}/deadline")
async def deadline(task_id: TaskId, new: NewDeadline, caller: TasksWrite, context: ContextDep) -> Task:
    """Give a task of one's own another deadline, or none."""
    return await set_deadline(
        context.store.writing(),
        task_id=task_id,
        deadline=new.deadline,
        caller=caller.name,
        anyone=Scope.ADMIN in caller.scopes,
        now=context.clock(),
    )
