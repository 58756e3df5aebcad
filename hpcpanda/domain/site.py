"""A site as its engineer describes it in one TOML file: the machine, how to start work on it, and the limits to keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between, require_name, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """How allocations are requested."""

    __pydantic_config__: ClassVar = _STRICT

    executor: str = "local"
    """Name of the PSI/J executor."""
    poll_seconds: float = 30.0
    """Time between two looks at the batch queue."""
    queue: str | None = None
    """Queue or partition that allocations are submitted to; the batch system's default when not said."""
    account: str | None = None
    """Account or project that allocations are charged to."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options of the batch system as PSI/J passes them on, for instance ``"slurm.qos" = "debug"``."""

    def __post_init__(self) -> None:
        require_name("scheduler.executor", self.executor)
        require_between("scheduler.poll_seconds", self.poll_seconds, 0.1, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One node of the machine; all nodes of a site file are alike."""

    __pydantic_config__: ClassVar = _STRICT

    count: int
    """Nodes that may be asked for."""
    cores: int
    """Cores of a node that run workers."""
    memory_mb: int
    """Memory of a node for workers, MiB."""
    oversubscribe: bool = False
    """Nodes are only pretended: several share this machine (laptop, tests); workers are not pinned."""

    def __post_init__(self) -> None:
        require_between("nodes.count", self.count, 1, 1_000_000)
        require_between("nodes.cores", self.cores, 1, 4096)
        require_between("nodes.memory_mb", self.memory_mb, 64, 64_000_000)


class PackVia(StrEnum):
    """What starts the MPI program of a pack."""

    DIRECT = "direct"
    """The site's launcher, called by the head."""
    PARSL = "parsl"
    """Parsl's MPIExecutor, which calls the site's launcher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherSettings:
    """How an MPI program is started with one rank a node."""

    __pydantic_config__: ClassVar = _STRICT

    command: tuple[str, ...] = ("mpiexec", "-n", "{ranks}")
    """Words in front of the program; ``{ranks}`` is the number of nodes. ``mpiexec`` alone is looked up
    beside the Python interpreter first, where the MPICH wheel puts it."""
    packs: PackVia = PackVia.DIRECT

    def __post_init__(self) -> None:
        require_nonempty("launcher.command", self.command)
        if not any("{ranks}" in word for word in self.command):
            raise InvalidValue("launcher.command", "must name {ranks}, the number of MPI ranks")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationSettings:
    """Shape and manners of an allocation."""

    __pydantic_config__: ClassVar = _STRICT

    walltime_s: float = 3600.0
    """Wall time asked for, seconds."""
    margin_s: float = 60.0
    """No range is started that would end later than this before the wall."""
    grace_s: float = 20.0
    """Time from SIGTERM to SIGKILL; the allocation drains within it."""
    lookahead_s: float = 120.0
    """Work an allocation keeps in hand beyond what its cores are doing, in seconds of all its cores."""
    linger_s: float = 5.0
    """An allocation without work waits this long for more before it ends."""
    sync_s: float = 1.0
    """Finished ranges are made durable together at least this often."""

    def __post_init__(self) -> None:
        require_between("allocation.walltime_s", self.walltime_s, 5.0, 1e7)
        require_between("allocation.margin_s", self.margin_s, 0.0, self.walltime_s / 2)
        require_between("allocation.grace_s", self.grace_s, 0.5, 3600.0)
        require_between("allocation.lookahead_s", self.lookahead_s, 0.1, 1e6)
        require_between("allocation.linger_s", self.linger_s, 0.0, 86_400.0)
        require_between("allocation.sync_s", self.sync_s, 0.01, 600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What the edge never exceeds."""

    __pydantic_config__: ClassVar = _STRICT

    allocations: int = 1
    """Allocations queued or running at a time."""
    nodes: int | None = None
    """Nodes of all allocations together; all of the site's when not said."""
    open_segment_mb: int = 1024
    """Segment files are rolled at this size, MiB."""

    def __post_init__(self) -> None:
        require_between("limits.allocations", self.allocations, 1, 10_000)
        if self.nodes is not None:
            require_between("limits.nodes", self.nodes, 1, 1_000_000)
        require_between("limits.open_segment_mb", self.open_segment_mb, 1, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An HPC centre's partition as the edge uses it."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """Also the name under which the edge registers."""
    spool: str
    """Folder on the shared file system, absolute; ``~`` and ``$VARIABLES`` are filled in when the file is read."""
    nodes: NodeSettings
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    launcher: LauncherSettings = field(default_factory=LauncherSettings)
    allocation: AllocationSettings = field(default_factory=AllocationSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)

    def __post_init__(self) -> None:
        require_name("name", self.name)
        if not self.spool.startswith("/"):
            raise InvalidValue("spool", f"{self.spool!r} is not an absolute path")

    @property
    def node_limit(self) -> int:
        """Nodes that all allocations together may hold."""
        return min(self.nodes.count, self.limits.nodes or self.nodes.count)
