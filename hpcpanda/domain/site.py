"""A site as its engineer describes it in one TOML file: the machine, how to start work on it, and the limits to keep."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.requirements import require_tags
from hpcpanda.domain.validation import require_between, require_name, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}
_WORD = re.compile(r"[\w.@%+:,/=-]+")
_BOUND = re.compile(r"/[^:,;\0\n]*")
_CONSTRAINT = re.compile(r"[\w.@%+:,/=&|*()\[\]-]+")


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
    reservation: str | None = None
    """Reservation that allocations run in."""
    qos: str | None = None
    """Quality of service that allocations are submitted to; Slurm's word, other batch systems have queues for it."""
    constraint: str | None = None
    """Features that nodes must have, as ``sbatch --constraint`` takes them; Slurm only."""
    slots_per_node: int = 1
    """Processes a node that are asked for. More than one where the batch system confines a job to as many
    processors as it asks for, although it has the node for itself."""
    setup: tuple[str, ...] = ()
    """Lines of bash in front of the head in every allocation, such as ``module load``; a line that fails ends it."""
    python: str | None = None
    """Python interpreter with hpcpanda on the compute nodes, absolute; the edge's own when not said. ``~`` and
    ``$VARIABLES`` are filled in, as they are in ``account``."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options of the batch system as PSI/J passes them on, for instance ``"slurm.qos" = "debug"``; with Slurm
    an empty string means an option without a value, such as ``"slurm.no-requeue" = ""``."""

    def __post_init__(self) -> None:
        require_name("scheduler.executor", self.executor)
        require_between("scheduler.poll_seconds", self.poll_seconds, 0.1, 3600.0)
        require_between("scheduler.slots_per_node", self.slots_per_node, 1, 4096)
        for name in ("queue", "account", "reservation", "qos"):
            _require_text(f"scheduler.{name}", getattr(self, name), _WORD)
        _require_text("scheduler.constraint", self.constraint, _CONSTRAINT)
        for name in ("qos", "constraint"):
            if getattr(self, name) is not None and self.executor != "slurm":
                raise InvalidValue(
                    f"scheduler.{name}", f"only Slurm has it, not {self.executor}; use queue and options"
                )
            if f"slurm.{name}" in self.options and getattr(self, name) is not None:
                raise InvalidValue(f"scheduler.{name}", f"is said again as slurm.{name} in options")
        for line in self.setup:
            if not line.strip() or "\n" in line:
                raise InvalidValue("scheduler.setup", f"{line!r} is not one line of bash")
        if self.python is not None and not self.python.startswith("/"):
            raise InvalidValue("scheduler.python", f"{self.python!r} is not an absolute path")
        prefix = self.executor.partition("_")[0] + "."
        for key in self.options:
            if not key.startswith(prefix) or key == prefix:
                raise InvalidValue(
                    "scheduler.options",
                    f"{key!r} would be ignored; for {self.executor} options begin with {prefix!r}",
                )


class GpuKind(StrEnum):
    """Whose GPUs a node has."""

    CUDA = "cuda"
    """NVIDIA: jobs see theirs by CUDA_VISIBLE_DEVICES."""
    ROCM = "rocm"
    """AMD: ROCR_VISIBLE_DEVICES."""
    LEVEL_ZERO = "level-zero"
    """Intel: ZE_AFFINITY_MASK."""


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
    gpus: int = 0
    """GPUs of a node, as the batch system counts them, that allocations ask for."""
    gpu_kind: GpuKind = GpuKind.CUDA
    """Whose GPUs they are: decides the variable that gives a job its own."""
    scratch: str | None = None
    """Node-local folder for the work folders of jobs and workers, absolute; ``$VARIABLES`` are filled in on the node.
    The system's temporary folder when not said."""
    oversubscribe: bool = False
    """Nodes are only pretended: several share this machine (laptop, tests); workers are not pinned."""

    def __post_init__(self) -> None:
        require_between("nodes.count", self.count, 1, 1_000_000)
        require_between("nodes.cores", self.cores, 1, 4096)
        require_between("nodes.memory_mb", self.memory_mb, 64, 64_000_000)
        require_between("nodes.gpus", self.gpus, 0, 64)
        if self.scratch is not None and not self.scratch.startswith(("/", "$")):
            raise InvalidValue("nodes.scratch", f"{self.scratch!r} is not an absolute path")


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
    mpi_command: tuple[str, ...] | None = None
    """Words in front of a user's MPI job on several nodes; ``{nodes}``, ``{ranks_per_node}`` and ``{ranks}``, the
    number of all its ranks, are filled in. Made of ``command`` when not said."""
    packs: PackVia = PackVia.DIRECT

    def __post_init__(self) -> None:
        require_nonempty("launcher.command", self.command)
        if not any("{ranks}" in word for word in self.command):
            raise InvalidValue("launcher.command", "must name {ranks}, the number of MPI ranks")
        if self.mpi_command is not None and not any("{ranks" in word for word in self.mpi_command):
            raise InvalidValue("launcher.mpi_command", "must name {ranks} or {ranks_per_node}")


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
    queued: int | None = None
    """Requests that may wait in the queue at a time without fitting into a backfill window. When not said: one, and as
    many as ``allocations`` where the batch system tells nothing of windows."""
    open_segment_mb: int = 1024
    """Segment files are rolled at this size, MiB."""
    staging_streams: int = 2
    """Files that are copied at a time, into the spool and out of it."""
    staging_reserve_mb: int = 1024
    """Inputs are copied only while more than this stays free on the file system of the spool, MiB."""

    def __post_init__(self) -> None:
        require_between("limits.allocations", self.allocations, 1, 10_000)
        if self.nodes is not None:
            require_between("limits.nodes", self.nodes, 1, 1_000_000)
        if self.queued is not None:
            require_between("limits.queued", self.queued, 1, self.allocations)
        require_between("limits.open_segment_mb", self.open_segment_mb, 1, 1_000_000)
        require_between("limits.staging_streams", self.staging_streams, 1, 64)
        require_between("limits.staging_reserve_mb", self.staging_reserve_mb, 0, 1_000_000_000)


class ContainerRuntime(StrEnum):
    """What runs containers at a centre."""

    APPTAINER = "apptainer"
    SINGULARITY = "singularity"
    SHIFTER = "shifter"
    PODMAN = "podman"
    PODMAN_HPC = "podman-hpc"
    CHARLIECLOUD = "charliecloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSettings:
    """How commands are run in containers."""

    __pydantic_config__: ClassVar = _STRICT

    runtime: ContainerRuntime
    """What runs them; the names of images are in its manner."""
    program: str | None = None
    """Its program, a path or a name on PATH; the runtime's usual one when not said."""
    options: tuple[str, ...] = ()
    """Further options for it, in front of the image."""
    binds: tuple[str, ...] = ()
    """Absolute paths that every container sees, under the same path; ``:rw`` behind one lets it write there."""
    mounted: tuple[str, ...] = ()
    """Folders that the runtime mounts by itself: what is below them need not be bound."""
    gpu_options: tuple[str, ...] | None = None
    """Options for a command that uses GPUs; those for NVIDIA's when not said."""

    def __post_init__(self) -> None:
        if self.program is not None and (not self.program or self.program.startswith("-")):
            raise InvalidValue("containers.program", f"{self.program!r} is not a program")
        for name in ("binds", "mounted"):
            for path in getattr(self, name):
                if not _BOUND.fullmatch(path.removesuffix(":rw") if name == "binds" else path):
                    raise InvalidValue(
                        f"containers.{name}", f"{path!r} is not an absolute path without ':', ',' and ';'"
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What the centre's documentation says that the queue takes; the rest of the site file must keep within it."""

    __pydantic_config__: ClassVar = _STRICT

    min_nodes: int = 1
    """Fewest nodes of one job."""
    max_nodes: int | None = None
    """Most nodes of one job."""
    max_walltime_s: float | None = None
    """Longest wall time of a job, seconds."""
    max_jobs: int | None = None
    """Jobs that one user or project may have queued and running together."""
    preemptible: bool = False
    """The centre ends jobs of this queue, after ``allocation.grace_s``, when it needs their nodes: requests then need not
    fit into backfill windows."""

    def __post_init__(self) -> None:
        require_between("queue.min_nodes", self.min_nodes, 1, 1_000_000)
        if self.max_nodes is not None:
            require_between("queue.max_nodes", self.max_nodes, self.min_nodes, 1_000_000)
        if self.max_walltime_s is not None:
            require_between("queue.max_walltime_s", self.max_walltime_s, 5.0, 1e7)
        if self.max_jobs is not None:
            require_between("queue.max_jobs", self.max_jobs, 1, 1_000_000)


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
    queue: QueueLimits = field(default_factory=QueueLimits)
    containers: ContainerSettings | None = None
    """Without it no command can be run in a container."""
    architecture: str | None = None
    """Processor architecture of the nodes, such as ``x86_64``; tasks that ask for one come only where it is said."""
    tags: tuple[str, ...] = ()
    """What tasks may ask for by name: software, licences, features; ``data:<policy>`` for policies of data it keeps."""

    def __post_init__(self) -> None:
        require_name("name", self.name)
        if self.architecture is not None:
            require_name("architecture", self.architecture)
        require_tags("tags", self.tags)
        if not self.spool.startswith("/"):
            raise InvalidValue("spool", f"{self.spool!r} is not an absolute path")
        self._require_within_queue()
        self._require_gpu_options()

    def _require_gpu_options(self) -> None:
        containers, nodes = self.containers, self.nodes
        if containers is None or containers.gpu_options is not None or not nodes.gpus:
            return
        if nodes.gpu_kind is not GpuKind.CUDA:
            raise InvalidValue(
                "containers.gpu_options",
                f"say what {containers.runtime} needs for {nodes.gpu_kind} GPUs, such as ['--rocm']; [] for nothing",
            )

    def _require_within_queue(self) -> None:
        queue, walltime_s = self.queue, self.allocation.walltime_s
        if queue.max_walltime_s is not None and walltime_s > queue.max_walltime_s:
            raise InvalidValue(
                "allocation.walltime_s",
                f"{walltime_s:g} is more than queue.max_walltime_s, {queue.max_walltime_s:g}",
            )
        if queue.max_jobs is not None and self.limits.allocations > queue.max_jobs:
            raise InvalidValue(
                "limits.allocations",
                f"{self.limits.allocations} is more than queue.max_jobs, {queue.max_jobs}",
            )
        if self.node_limit < queue.min_nodes:
            raise InvalidValue(
                "limits.nodes", f"{self.node_limit} is less than queue.min_nodes, {queue.min_nodes}"
            )

    @property
    def node_limit(self) -> int:
        """Nodes that all allocations together may hold."""
        return min(self.nodes.count, self.limits.nodes or self.nodes.count)


def _require_text(name: str, value: str | None, allowed: re.Pattern[str]) -> None:
    """Accept what passes through a job script without quotes; None is nothing to pass."""
    if value is not None and not allowed.fullmatch(value):
        raise InvalidValue(name, f"{value!r} is empty or has characters that no batch system takes here")
