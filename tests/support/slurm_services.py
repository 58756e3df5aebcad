"""Allocations and services on a Slurm cluster, with the site file that is shipped for it."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcpanda.allocation.plan import AllocationPlan, Pack
from hpcpanda.allocation.spool import PLAN, write_message
from hpcpanda.client.site_file import load_site
from hpcpanda.domain.site import Site
from tests.support.allocation import Rig
from tests.support.services import Services
from tests.support.slurm import SlurmCluster

SITE_FILE = Path(__file__).parents[2] / "site-configs" / "loopback-cluster.toml"
NAME = "loopback-cluster"


def cluster_site(spool: Path, *, nodes: int, cores: int = 1, **allocation: float) -> Site:
    """The shipped site, over this spool, with fewer nodes and cores."""
    site = load_site(SITE_FILE, spool=spool)
    return replace(
        site,
        nodes=replace(site.nodes, count=nodes, cores=cores),
        allocation=replace(site.allocation, **allocation),
    )


@dataclass(slots=True)
class SlurmRig(Rig):
    """One allocation whose head is the script of a batch job."""

    cluster: SlurmCluster | None = None
    job_id: int = 0

    @property
    def slurm(self) -> SlurmCluster:
        """The cluster."""
        assert self.cluster is not None
        return self.cluster

    def start(self, *packs: Pack) -> None:
        """Write the plan and submit the head."""
        self.allocation.create()
        site = cluster_site(
            self.spool.path,
            nodes=self.nodes,
            cores=self.cores,
            linger_s=self.linger_s,
            walltime_s=self.walltime_s,
            margin_s=self.margin_s,
            grace_s=self.grace_s,
            sync_s=0.05,
        )
        site = replace(site, launcher=replace(site.launcher, packs=self.via))
        plan = AllocationPlan(
            allocation_id="a", site=site, nodes=self.nodes, walltime_s=self.walltime_s, packs=packs
        )
        write_message(self.allocation.plan, PLAN, plan)
        self.job_id = self.slurm.sbatch(
            f"exec {sys.executable} -m hpcpanda.allocation.head a {self.spool.path}",
            f"--nodes={self.nodes}", "--exclusive", "--ntasks-per-node=1", "--no-kill",
        )  # fmt: skip

    def log(self) -> str:
        """What the head has printed."""
        return self.slurm.output(self.job_id)


@dataclass(slots=True)
class SlurmServices(Services):
    """A dispatcher and an edge whose allocations are batch jobs."""

    requeue: bool = False
    """A preempted allocation is queued again, instead of ended."""
    grace_s: float = 2.0
    allocations: int = 1
    """Limit of allocations at a time."""
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    """Further fields of the site file, by table; changes are for the next start."""

    def site_of(self, name: str, spool: Path) -> Path:
        """The shipped site file over a spool of its own."""
        path = self.folder / f"{name}.toml"
        document: dict[str, Any] = tomllib.loads(SITE_FILE.read_text())
        document["name"], document["spool"] = name, str(spool)
        document["nodes"] |= {"count": self.nodes, "cores": self.cores}
        document["allocation"] |= {
            "walltime_s": self.walltime_s, "lookahead_s": self.lookahead_s, "linger_s": self.linger_s,
            "grace_s": self.grace_s,
        }  # fmt: skip
        document["limits"]["allocations"] = self.allocations
        if self.requeue:
            del document["scheduler"]["options"]
        for table, fields in self.tables.items():
            document.setdefault(table, {}).update(fields)
        path.write_text("".join(_lines(document)))
        return path


def _lines(document: dict[str, Any], above: tuple[str, ...] = ()) -> list[str]:
    """TOML of tables of plain values; JSON writes these as TOML does."""
    lines = [f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in document.items() if not isinstance(v, dict)]
    if above:
        lines.insert(0, f"[{'.'.join(above)}]\n")
    for key, value in document.items():
        if isinstance(value, dict):
            lines += _lines(value, (*above, key))
    return lines
