"""The three payload forms that are given ranges behind one interface: prepare once a node, make a runner a worker, run ranges.

``prepare`` is called in a process that has no threads and no MPI; workers are forked from it, so
that what the set-up made is shared. Time and memory limits are kept by whoever owns the worker: it
ends the worker's process group, all that a payload started with it.
"""

from __future__ import annotations

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.payloads import CallablePayload, CommandPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms.ports import Contain, Prepared, Runner

__all__ = ["Contain", "Prepared", "Runner", "prepare"]


def prepare(spec: TaskSpec, contain: Contain | None = None) -> Prepared:
    """Make a task's payload ready to run: import user code and run its set-up, or find its program.

    Args:
        spec: the task.
        contain: puts programs into the task's container; None when it asks for none.

    Raises:
        PayloadFailed: whatever user code did instead of getting ready, ``SystemExit`` included; the task asks for
            a container and ``contain`` is not given.
    """
    if spec.container is not None and contain is None:
        raise PayloadFailed(
            "container: the task asks for one, and none can be run here; [containers] of a site file says how"
        )
    if isinstance(spec.payload, CallablePayload):
        from hpcpanda.payload.forms.call import PreparedCall

        return PreparedCall(spec, spec.payload)
    if isinstance(spec.payload, CommandPayload):
        from hpcpanda.payload.forms.command import PreparedCommand

        return PreparedCommand(spec, spec.payload, contain)
    assert not isinstance(spec.payload, JobPayload), "jobs are given no ranges: their keeper runs them"
    from hpcpanda.payload.forms.process import PreparedProcess

    return PreparedProcess(spec, spec.payload, contain)
