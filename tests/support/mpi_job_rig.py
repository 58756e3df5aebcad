"""One MPI job's pack without a head: its program, started by a launcher, told and heard over its line."""

from __future__ import annotations

import os
import select
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from hpcpanda.allocation.launch import PackLauncher, RunningPack
from hpcpanda.allocation.pack_line import FROM_HEAD, STATUS
from hpcpanda.allocation.pack_run import PACK_RUN, PackRun
from hpcpanda.allocation.plan import LeasedEvents, MpiJobPack, PackStatus, TaskWork, ToPack
from hpcpanda.allocation.spool import AllocationFolder, Spool, journal_name, write_message
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import LossPolicy, TaskSpec
from hpcpanda.events.bundle import LEAD_BYTES, BundleHead, head_length, read_head
from hpcpanda.events.journal import JournalPart, read_journal, segment_path

PROGRAM = """
import os, sys, time
from mpi4py import MPI
world = MPI.COMM_WORLD
nodes = world.gather(os.environ.get("SLURMD_NODENAME", "here"))
if world.rank == 0:
    print("size", world.size, "nodes", *sorted(set(nodes)), "words", *sys.argv[1:], flush=True)
"""
"""A real MPI program; what follows is run by its rank 0 (``lead``) or all."""


def mpi_spec(
    tail: str = "",
    *,
    nodes: int = 2,
    ranks_per_node: int = 1,
    attempts: int = 1,
    walltime_s: float = 120.0,
    words: tuple[str, ...] = (),
    outputs: tuple[str, ...] = ("stdout.txt",),
    environment: dict[str, str] | None = None,
    inputs: tuple[str, ...] = (),
    container: str | None = None,
) -> TaskSpec:
    """A task of MPI jobs of :data:`PROGRAM` and more lines of Python."""
    return TaskSpec(
        name="mpi",
        jobs=100,
        payload=JobPayload(
            command=(sys.executable, "-c", f"{PROGRAM}\n{tail}", *words),
            outputs=outputs,
            inputs=inputs,
            environment=environment or {},
        ),
        job=JobRequest(nodes=nodes, ranks_per_node=ranks_per_node, walltime_s=walltime_s),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
        loss=LossPolicy(attempts=attempts),
        container=container,
    )


def mpi_pack(
    spec: TaskSpec, *, job: int | None = 7, epoch: int = 4, pack_id: str = "m", task_id: int = 1
) -> MpiJobPack:
    """A pack of one job; of none, when it is done already."""
    assert spec.job is not None
    events = EMPTY if job is None else IntervalSet.span(job, job + 1)
    work = TaskWork(task_id=task_id, spec=spec, events=(LeasedEvents(epoch=epoch, events=events),))
    return MpiJobPack(pack_id=pack_id, nodes=spec.job.nodes, work=(work,))


@dataclass(slots=True)
class MpiJobRig:
    """Starts packs of one allocation."""

    site: Site
    launcher: PackLauncher
    running: list[StartedPack] = field(default_factory=list)

    @property
    def spool(self) -> Spool:
        """The spool folder."""
        return Spool(Path(self.site.spool))

    @property
    def folder(self) -> AllocationFolder:
        """The allocation's folder."""
        return self.spool.allocation("a")

    def start(self, pack: MpiJobPack, *, seconds: float = 100.0, incarnation: int = 0) -> StartedPack:
        """Start a pack that must have ended in so many seconds."""
        self.folder.create()
        self.spool.events(pack.work[0].task_id).mkdir(parents=True, exist_ok=True)
        run = PackRun(
            allocation_id="a",
            spool=self.site.spool,
            site=self.site,
            pack=pack,
            incarnation=incarnation,
            deadline=time.time() + seconds,
        )
        run_file = self.folder.packs / f"{pack.pack_id}-i{incarnation}.json"
        write_message(run_file, PACK_RUN, run)
        request = pack.work[0].spec.job_request
        assert request is not None
        log = self.folder.logs / f"{pack.pack_id}.log"
        process = self.launcher.start_mpi_job(
            "hpcpanda.allocation.mpi_job",
            run_file,
            nodes=pack.nodes,
            ranks_per_node=request.ranks_per_node,
            log=log,
        )
        journal = self.spool.events(pack.work[0].task_id) / journal_name("a", pack.pack_id, incarnation, 0)
        self.running.append(StartedPack(process, journal, log))
        return self.running[-1]

    @property
    def work_left(self) -> list[Path]:
        """What is left of work folders."""
        return list((self.folder.path / "work").glob("*/*"))

    def close(self) -> None:
        """End everything."""
        for pack in self.running:
            pack.process.kill()
            pack.process.close()
        self.launcher.close()


@dataclass(slots=True)
class StartedPack:
    """A pack that was started."""

    process: RunningPack
    journal: Path
    log: Path
    heard: list[PackStatus] = field(default_factory=list)
    partial: bytes = b""

    def tell(self, message: ToPack) -> None:
        """Say something to it."""
        self.process.tell(FROM_HEAD.dump_json(message) + b"\n")

    def listen(self, seconds: float) -> None:
        """Take what it says in so many seconds."""
        if not select.select([self.process.reports], [], [], seconds)[0]:
            return
        got = os.read(self.process.reports, 1 << 16)
        *lines, self.partial = (self.partial + got).split(b"\n")
        self.heard += [STATUS.validate_json(line) for line in lines]

    def until_busy(self, seconds: float = 90.0) -> None:
        """Wait until its command runs."""
        self._until(lambda: bool(self.heard) and self.heard[-1].cores_busy > 0, seconds)

    def until_exit(self, seconds: float = 90.0) -> PackStatus:
        """Wait for its end; gives its last word."""
        self._until(lambda: self.process.exited() is not None, seconds)
        self.listen(0)
        return self.heard[-1]

    def _until(self, reached: object, seconds: float) -> None:
        assert callable(reached)
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"{self.heard[-1:]} {self.log.read_text()}"
            self.listen(0.05)
            if self.process.exited() is not None:
                time.sleep(0.01)  # the end of the line is readable for ever

    @property
    def recorded(self) -> JournalPart:
        """What its journal holds."""
        return read_journal(self.journal)

    def output(self) -> tuple[BundleHead, dict[str, bytes]]:
        """Report and files of the job that it has recorded."""
        part = self.recorded
        assert len(part.entries) == 1, part.failed
        (entry,) = part.entries
        with segment_path(self.journal, int(entry["segment"])).open("rb") as file:
            file.seek(int(entry["offset"]))
            data = file.read(int(entry["length"]))
        length = head_length(data[:LEAD_BYTES])
        head = read_head(data[LEAD_BYTES : LEAD_BYTES + length])
        at, files = LEAD_BYTES + length, {}
        for entry_file in head.files:
            files[entry_file.name] = data[at : at + entry_file.size]
            at += entry_file.size
        assert at == len(data)
        return head, files
