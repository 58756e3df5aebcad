"""Whether a job fits a machine: what the largest job may ask for, and why one asks for too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.validation import require_between

_NO_CONTAINERS: Final = "asks for a container, where none can be run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The largest job that a site, or what is left of an allocation, can take."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    cores: int
    """Of one node."""
    memory_mb: int
    """Of one node, MiB."""
    gpus: int = 0
    """Of one node."""
    nodes: int = 1
    seconds: float
    """Longest time a job may run."""
    containers: bool = False
    """Commands can be run in containers."""

    def __post_init__(self) -> None:
        require_between("cores", self.cores, 1, 4096)
        require_between("memory_mb", self.memory_mb, 1, 64_000_000)
        require_between("gpus", self.gpus, 0, 64)
        require_between("nodes", self.nodes, 1, 1_000_000)
        require_between("seconds", self.seconds, 0.0, 1e8)

    @classmethod
    def of_site(cls, site: Site) -> Room:
        """What an allocation of the site has room for at its start."""
        return cls(
            cores=site.nodes.cores,
            memory_mb=site.nodes.memory_mb,
            gpus=site.nodes.gpus,
            nodes=site.node_limit,
            seconds=site.allocation.walltime_s - site.allocation.margin_s,
            containers=site.containers is not None,
        )

    def covering(self, other: Room | None) -> Room:
        """The smallest room that has room for all that either has room for."""
        if other is None:
            return self
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self.__slots__}
        return Room(**{name: max(pair) for name, pair in pairs.items()})

    def refusal(self, job: JobRequest, *, container: bool = False) -> str | None:
        """What of a job does not fit, in words; None when it fits. ``container``: its command runs in one."""
        asked = (
            ("cores", job.cores if job.nodes == 1 else 1, self.cores),
            ("MiB of memory", job.memory_mb, self.memory_mb),
            ("GPUs", job.gpus, self.gpus),
            ("nodes", job.nodes, self.nodes),
            ("seconds", job.walltime_s, self.seconds),
        )
        for what, wanted, there in asked:
            if wanted > there:
                return f"asks for {wanted:g} {what}, where there are {there:g}"
        if container and not self.containers:
            return _NO_CONTAINERS
        return None

    def refusal_of(self, spec: TaskSpec) -> str | None:
        """What of a task does not fit, in words; None when it fits."""
        if spec.job_request is not None:
            return self.refusal(spec.job_request, container=spec.container is not None)
        return _NO_CONTAINERS if spec.container is not None and not self.containers else None
