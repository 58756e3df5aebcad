"""The numbers that the reason of each task rests on."""

from __future__ import annotations

from hpcpanda.planning.actions import Reason
from hpcpanda.planning.situation import Situation
from hpcpanda.planning.tasks import Tasks


def numbers(s: Situation, todo: Tasks) -> dict[int, dict[str, float]]:
    """By task and name: what is ready of it, what a job asks for, and what of the limits is in use where they matter."""
    limits = {
        "allocations": len(s.allocations),
        "allocations_limit": s.site.limits.allocations,
        "nodes": sum(a.nodes for a in s.allocations),
        "nodes_limit": s.site.node_limit,
    }
    found: dict[int, dict[str, float]] = {}
    for task in s.tasks:
        told: dict[str, float] = {"ready": task.ready}
        if task.job is not None:
            told |= {"job_nodes": task.job.nodes, "job_seconds": task.job.walltime_s}
        match todo.reasons[task.task_id]:
            case Reason.BACKING_OFF:
                told["seconds"] = max(0.0, task.not_before - s.now)
            case Reason.SUBMISSION_FAILING:
                told["seconds"] = max(0.0, s.submit_not_before - s.now)
            case Reason.DOES_NOT_FIT:
                told |= {"room_nodes": todo.largest.nodes, "room_seconds": todo.largest.seconds}
            case Reason.ALLOCATION_LIMIT | Reason.NODE_LIMIT | Reason.NO_WINDOW:
                told |= limits
            case _:
                pass
        found[task.task_id] = told
    return found
