"""The probe for a site, by the name of its PSI/J executor."""

from __future__ import annotations

from hpcpanda.domain.site import Site
from hpcpanda_edge.windows.commands import CallLimits
from hpcpanda_edge.windows.lsf import LsfReader
from hpcpanda_edge.windows.none import NoProbe
from hpcpanda_edge.windows.paced import PacedProbe
from hpcpanda_edge.windows.pbs import PbsReader
from hpcpanda_edge.windows.ports import WindowProbe, WindowReader
from hpcpanda_edge.windows.slurm import SlurmReader


def make_window_probe(
    site: Site, *, every_s: float = 60.0, limits: CallLimits | None = None, slots_per_node: int | None = None
) -> WindowProbe:
    """The probe of the site's batch system; one that knows nothing where there is none.

    Args:
        site: its executor and queue.
        every_s: seconds between two questions to the batch system; never less than the site's own polling.
        limits: what one call may take.
        slots_per_node: for LSF, when a slot is not a core.
    """
    queue = site.scheduler.queue
    reader: WindowReader
    match site.scheduler.executor:
        case "slurm":
            reader = SlurmReader(partition=queue, limits=limits)
        case "pbs" | "pbspro":
            reader = PbsReader(queue=queue, limits=limits)
        case "lsf":
            reader = LsfReader(slots_per_node=slots_per_node or site.nodes.cores, queue=queue, limits=limits)
        case other:
            return NoProbe(f"there is no window probe for the executor {other!r}")
    return PacedProbe(reader, every_s=max(every_s, site.scheduler.poll_seconds))
