"""The three payload forms behind one interface: prepare once a node, make a runner a worker, run ranges.

``prepare`` is called in a process that has no threads and no MPI; workers are forked from it, so
that what the set-up made is shared. Time and memory limits are kept by whoever owns the worker: it
ends the worker's process group, all that a payload started with it.
"""

from __future__ import annotations

from hpcpanda.domain.task import CallablePayload, CommandPayload, TaskSpec
from hpcpanda.payload.forms.ports import Prepared, Runner

__all__ = ["Prepared", "Runner", "prepare"]


def prepare(spec: TaskSpec) -> Prepared:
    """Make a task's payload ready to run: import user code and run its set-up, or find its program.

    Raises:
        PayloadFailed: whatever user code did instead of getting ready, ``SystemExit`` included.
    """
    if isinstance(spec.payload, CallablePayload):
        from hpcpanda.payload.forms.call import PreparedCall

        return PreparedCall(spec, spec.payload)
    if isinstance(spec.payload, CommandPayload):
        from hpcpanda.payload.forms.command import PreparedCommand

        return PreparedCommand(spec, spec.payload)
    from hpcpanda.payload.forms.process import PreparedProcess

    return PreparedProcess(spec, spec.payload)
