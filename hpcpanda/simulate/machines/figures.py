"""How the host fared with us, beside how it would have without."""

from __future__ import annotations

import numpy as np

from hpcpanda.simulate.machines.host_alone import HostSchedule
from hpcpanda.simulate.results import HostFigures
from hpcpanda.simulate.trace import HostTrace

_LATER_S = 1e-3
"""Less is rounding, not a delay."""


def host_figures(
    trace: HostTrace,
    before: HostSchedule,
    after: HostSchedule,
    *,
    span: tuple[float, float],
    useful_node_s: float,
) -> HostFigures:
    """Compare two schedules of the same jobs.

    Args:
        trace: the jobs.
        before: the host alone.
        after: with our allocations; from :meth:`~hpcpanda.simulate.machines.host_machine.HostMachine.finish`.
        span: the time over which utilisation is taken; see :meth:`HostSchedule.span`. Delays are of all jobs.
        useful_node_s: our finished work in the span, node-seconds.
    """
    ran = ~(np.isnan(before.start) | np.isnan(after.start))
    delay = np.maximum(after.start[ran] - before.start[ran], 0.0)
    delay[delay < _LATER_S] = 0.0
    seconds = span[1] - span[0]
    whole = trace.machine_nodes * seconds
    return HostFigures(
        jobs=int(ran.sum()),
        nodes=trace.machine_nodes,
        days=seconds / 86_400.0,
        utilisation_before=busy_node_seconds(trace, before, span) / whole if whole else 0.0,
        utilisation_after=(busy_node_seconds(trace, after, span) + useful_node_s) / whole if whole else 0.0,
        delayed_jobs=int(np.count_nonzero(delay)),
        delay_mean_s=float(delay.mean()) if len(delay) else 0.0,
        delay_max_s=float(delay.max(initial=0.0)),
    )


def busy_node_seconds(trace: HostTrace, schedule: HostSchedule, span: tuple[float, float]) -> float:
    """Node-seconds of the host's jobs in a span."""
    inside = np.clip(schedule.end, *span) - np.clip(schedule.start, *span)
    return float(np.nansum(inside * trace.nodes))
