"""Jobs: the command that each of a task's jobs is, and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPayload:
    """A command run once a job, in a work folder of its own."""

    __pydantic_config__: ClassVar = _STRICT

    command: tuple[str, ...]
    """Words of the command; ``{job} {jobs} {seed} {cores} {gpus} {memory_mb}`` are filled in. No shell. With
    several nodes it is started as an MPI program by the site's launcher."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables added to the job's environment; ``{job}`` and the others are filled in."""
    inputs: tuple[str, ...] = ()
    """Absolute paths of files, linked into the work folder under their own names; ``{job}`` is filled in."""
    outputs: tuple[str, ...] = ()
    """Files that the job must leave in its work folder; each becomes a member of the task's output.
    ``stdout.txt`` and ``stderr.txt`` are what it prints. ``{job}`` is filled in."""
    form: Literal["job"] = "job"

    def __post_init__(self) -> None:
        require_nonempty("payload.command", self.command)
        if any("\0" in word for word in (*self.command, *self.environment.values())):
            raise InvalidValue("payload.command", "holds a NUL, which no program can be given")
        for name in self.environment:
            if not name or "=" in name or "\0" in name:
                raise InvalidValue("payload.environment", f"{name!r} does not name a variable")
        for path in self.inputs:
            if not path.startswith("/") or "\0" in path or path.rpartition("/")[2] in ("", ".", ".."):
                raise InvalidValue("payload.inputs", f"{path!r} is not an absolute path of a file")
        names = [path.rpartition("/")[2] for path in self.inputs]
        taken = {*self.outputs, "stdout.txt", "stderr.txt"}
        if len(set(names)) < len(names) or taken & set(names):
            raise InvalidValue(
                "payload.inputs",
                "two files would have the same name in the work folder, or that of an output or of what a job prints",
            )
        for name in self.outputs:
            parts = name.split("/")
            if not name or name.startswith("/") or "\0" in name or {"", ".", ".."} & set(parts):
                raise InvalidValue("payload.outputs", f"{name!r} is not a path inside the work folder")
        if len(set(self.outputs)) != len(self.outputs):
            raise InvalidValue("payload.outputs", "names a file twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What one job asks for; all jobs of a task ask alike."""

    __pydantic_config__: ClassVar = _STRICT

    cores: int = 1
    """Cores of one node, for a job on one node; a job on several nodes has them whole."""
    memory_mb: int = 2000
    """Memory on each of its nodes, MiB; a job whose processes use more is ended and has failed."""
    gpus: int = 0
    """GPUs on each of its nodes."""
    nodes: int = 1
    """Whole nodes of an MPI job; 1: a job on some cores of one node."""
    ranks_per_node: int = 1
    """MPI ranks on each node, for a job on several nodes."""
    walltime_s: float = 3600.0
    """A job that runs longer is ended and has failed. It starts only where so much time is left."""
    disk_mb: int = 1000
    """Most that the job may keep in its work folder, MiB."""
    clones: int = 1
    """The job is run so often at the same time; the first that succeeds counts, the others are ended."""

    def __post_init__(self) -> None:
        require_between("job.cores", self.cores, 1, 4096)
        require_between("job.memory_mb", self.memory_mb, 16, 64_000_000)
        require_between("job.gpus", self.gpus, 0, 64)
        require_between("job.nodes", self.nodes, 1, 1_000_000)
        require_between("job.ranks_per_node", self.ranks_per_node, 1, 4096)
        require_between("job.walltime_s", self.walltime_s, 0.1, 1e7)
        require_between("job.disk_mb", self.disk_mb, 0, 1_000_000_000)
        require_between("job.clones", self.clones, 1, 16)
        if self.nodes == 1 and self.ranks_per_node != 1:
            raise InvalidValue("job.ranks_per_node", "is for jobs on several nodes; give 'cores' on one")
        if self.nodes > 1 and self.clones > 1:
            raise InvalidValue("job.clones", "are for jobs on one node")

    def core_seconds(self, node_cores: int) -> float:
        """Core-seconds that it may use at most, on nodes of so many cores."""
        cores = self.cores if self.nodes == 1 else self.nodes * node_cores
        return cores * self.walltime_s
