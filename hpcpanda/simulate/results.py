"""What a simulation found: figures for people and for JSON, and the series that pictures are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcpanda.simulate.trace import Flaw, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFigures:
    """How the host's own work fared."""

    jobs: int
    nodes: int
    days: float
    utilisation_before: float
    """Busy share of all node-hours, host alone, 0..1."""
    utilisation_after: float
    """With our allocations' useful node-hours added, and the host's jobs as they then ran."""
    delayed_jobs: int
    """Host jobs that started later than without us."""
    delay_mean_s: float
    """Mean over all host jobs, earlier starts counted as 0."""
    delay_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestFigures:
    """What one policy made of the idle nodes. Node-hours, unless said otherwise."""

    policy: str
    harvestable: float
    """Idle node-hours in holes of at least ``shortest_hole_s``."""
    shortest_hole_s: float
    held: float
    """In allocations of ours while the nodes would have been idle otherwise."""
    displaced: float = 0.0
    """In allocations of ours while the host alone would have used the nodes. Useful, lost and overhead together are
    what was held and what was displaced."""
    useful: float
    """Work that was finished and kept."""
    lost: float
    """Work that was begun and thrown away."""
    overhead: float
    """Start-up, drain, and cores without work while held."""
    startup: float = 0.0
    """Part of the overhead: before the first event, or job."""
    drain: float = 0.0
    """Part of the overhead: at the end of allocations, while some cores still work."""
    unfilled: float = 0.0
    """Part of the overhead: cores, or nodes, without work."""
    requests: int
    started: int
    preempted: int
    killed_at_wall: int
    failed: int = 0
    """Allocations that lost a node, and ended by it."""
    events_finished: int
    jobs_finished: int
    queue_wait_median_s: float
    queue_wait_p90_s: float
    turnaround_median_s: float
    """Of our tasks, or of their events where the work does not end: from ready to finished."""
    host: HostFigures

    @property
    def harvested_share(self) -> float:
        """Share of the harvestable that was held, 0..1."""
        return self.held / self.harvestable if self.harvestable else 0.0

    @property
    def useful_share(self) -> float:
        """Share of the harvestable that became finished work, less what the host was deprived of for it, 0..1."""
        return (self.useful - self.displaced) / self.harvestable if self.harvestable else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestSeries:
    """Step functions of time for pictures: value i holds from time i to time i+1. Seconds, nodes."""

    times: Floats
    host: Floats
    """Nodes busy with the host's jobs."""
    ours: Floats
    """Nodes that we hold."""
    hole_lengths: Floats
    """Holes of one node each: seconds."""
    gantt: tuple[tuple[float, float, int, str], ...] = ()
    """Allocations of ours: start, end, nodes, how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """All policies over one trace."""

    source: str
    site: str
    seed: int
    wall_s: float
    """Time that the simulation took, seconds."""
    flaws: tuple[Flaw, ...]
    policies: tuple[HarvestFigures, ...]
    series: dict[str, HarvestSeries] = field(default_factory=dict)
    """By policy; left out of the JSON."""
