"""The probe for a site, by the name of its PSI/J executor."""

from __future__ import annotations

from hpcpanda.domain.site import Site
from hpcpanda_edge.windows.lsf import LsfReader
from hpcpanda_edge.windows.none import NoProbe
from hpcpanda_edge.windows.paced import PacedProbe
from hpcpanda_edge.windows.pbs import PbsReader
from hpcpanda_edge.windows.ports import WindowProbe, WindowReader
from hpcpanda_edge.windows.slurm import SlurmReader


def make_window_probe(site: Site) -> WindowProbe:
    """The probe of the site's batch system; one that knows nothing where there is none.

    It asks no more often than the site file lets the edge look at the batch queue.
    """
    queue = site.scheduler.queue
    reader: WindowReader
    match site.scheduler.executor:
        case "slurm":
            reader = SlurmReader(partition=queue)
        case "pbs" | "pbspro":
            reader = PbsReader(queue=queue)
        case "lsf":
            reader = LsfReader(slots_per_node=site.nodes.cores, queue=queue)
        case other:
            return NoProbe(f"there is no window probe for the executor {other!r}")
    return PacedProbe(reader, every_s=site.scheduler.poll_seconds)
