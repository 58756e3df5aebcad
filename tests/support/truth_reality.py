"""The scenario on the loopback Slurm cluster, with the real edge and dispatcher; Slurm's accounting and the journals tell."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from hpcpanda.allocation.spool import Spool
from hpcpanda.client.site_file import load_site
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import LossPolicy, RangePolicy, TaskSpec
from hpcpanda.events.journal import read_journal
from tests.support import truth_payload
from tests.support.services import wait_until
from tests.support.slurm import SlurmCluster
from tests.support.slurm_services import NAME, SlurmServices
from tests.support.truth import Harvest, HostJob, Scenario

_EARLY_S: Final = 2.0
"""What ends so long before the scenario was not ended by it: the accounting has whole seconds."""
_FIRST: Final = 2**32 - 10
"""Above the priority that Slurm gives to ours."""
ENDLESS: Final = 10**7
"""Events: more than are ever done."""
Row = dict[str, str]


@dataclass(slots=True)
class Reality:
    """A dispatcher and an edge over a folder, for one scenario."""

    folder: Path
    cluster: SlurmCluster
    scenario: Scenario
    walltime_s: float = 600.0

    @property
    def site(self) -> Site:
        """As the edge reads it."""
        return load_site(self._services().site_of(NAME, self.folder / "spool"), spool=self.folder / "spool")

    def harvest(self) -> Harvest:
        """Let the scenario happen; takes as long as it does, and some seconds."""
        services, cluster = self._services(), self.cluster
        before = len(cluster.accounting())
        (self.folder / "notes").mkdir()
        try:
            services.start_dispatcher()
            services.start_edge(name=NAME)
            time.sleep(5)  # until it is registered, and has looked at the batch system
            with services.client() as client:
                began = time.time()
                host = [self._submit(job) for job in self.scenario.host if not job.at]
                time.sleep(self.scenario.work_at)
                events = client.submit(self._events()).task_id
                client.submit(self._jobs())
                for job in self.scenario.host[len(host) :]:
                    time.sleep(max(0.0, began + job.at - time.time()))
                    services.check_alive("edge")
                    host.append(self._submit(job))
                time.sleep(max(0.0, began + self.scenario.seconds - time.time()))
            end = began + self.scenario.seconds
            for job in cluster.queue():
                cluster.cancel(job.job_id)
            wait_until(lambda: not cluster.queue(), "an empty queue", seconds=60)
        finally:
            services.stop()
        return self._counted(cluster.accounting()[before:], host, (began, end), events)

    def _services(self) -> SlurmServices:
        scenario = self.scenario
        return SlurmServices(
            self.folder,
            nodes=scenario.nodes,
            cores=scenario.cores,
            walltime_s=self.walltime_s,
            lookahead_s=5.0,
            linger_s=2.0,
            allocations=3,
            tables=scenario.site_tables,  # type: ignore[arg-type]
        )

    def _submit(self, job: HostJob) -> int:
        """Submit a job of the host; gives its id."""
        return self.cluster.sbatch(
            f"exec sleep {job.run_s}",
            "--partition=urgent" if self.scenario.preempts else f"--priority={_FIRST}",
            f"--nodes={job.nodes}",
            f"--time={job.limit_minutes}",
            "--exclusive",
            "--job-name=host",
        )

    def _events(self) -> TaskSpec:
        work = self.scenario.events
        settings = {"event_s": work.event_seconds, "spread": work.spread, "notes": str(self.folder / "notes")}
        return TaskSpec(
            name="events",
            events=ENDLESS,
            seed=1,
            payload=CallablePayload(
                call="truth_payload:generate",
                python_path=(str(Path(truth_payload.__file__).parent),),
                settings=settings,
            ),
            ranges=RangePolicy(target_seconds=work.target_seconds),
            output=Output(file="out.bin", format=OutputFormat.CONCAT),
        )

    def _jobs(self) -> TaskSpec:
        work = self.scenario.jobs
        script = truth_payload.JOB_SCRIPT.format(notes=self.folder / "notes", seconds=work.median_s)
        return TaskSpec(
            name="jobs",
            jobs=self.scenario.job_count,
            payload=JobPayload(command=("bash", "-c", script, "bash", "{job}"), outputs=("out",)),
            job=JobRequest(cores=work.cores, memory_mb=work.memory_mb, walltime_s=work.limit_s),
            output=Output(file="jobs.zip", format=OutputFormat.ZIP),
            loss=LossPolicy(attempts=10),
        )

    # ---- what it came to ----

    def _counted(self, rows: list[Row], host: list[int], span: tuple[float, float], events: int) -> Harvest:
        began, end = span
        ours = [r for r in rows if int(r["JobId"]) not in host and int(r["NodeCnt"])]
        ends = {r["JobId"]: min(_seconds(r["EndTime"], began), end) for r in ours}
        starts = {r["JobId"]: _seconds(r["StartTime"], began) for r in ours}
        nodes = {r["JobId"]: int(r["NodeCnt"]) for r in ours}
        ranges = self._finished(events, end)
        done = self._finished_jobs(end)
        work = self.scenario
        count = sum(last - first for first, last in ranges.items())
        return Harvest(
            held=sum((ends[job] - starts[job]) * nodes[job] for job in ends),
            useful=count * work.events.event_seconds + len(done) * work.jobs.median_s * work.jobs.cores,
            lost=self._lost("range-*", ranges, ends) + self._lost("job-*", done, ends),
            events=count,
            jobs=len(done),
            allocations=len(ours),
            preempted=sum(at < end - _EARLY_S for at in ends.values()),
            startup_s=self._startup(starts, nodes),
            queue_s=statistics.median(
                [_seconds(r["StartTime"], began) - _seconds(r["SubmitTime"], began) for r in ours] or [0.0]
            ),
            host=tuple(self._host_start(job, rows, began) for job in host),
        )

    def _finished(self, task_id: int, end: float) -> dict[int, int]:
        """Journalled ranges that ended in time: their ends by their begins."""
        found: dict[int, int] = {}
        for path in Spool(self.folder / "spool").events(task_id).glob("*.journal"):
            for e in read_journal(path).entries:
                if float(e["start"]) + float(e["wall_s"]) <= end:
                    found[int(e["first"])] = int(e["last"])
        return found

    def _finished_jobs(self, end: float) -> dict[int, int]:
        """The same of jobs, from their own notes: the journals of a task that is done are deleted."""
        files = (self.folder / "notes").glob("done-*")
        jobs = [int(f.name.partition("-")[2]) for f in files if float(f.read_text() or "inf") <= end]
        return {job: job + 1 for job in jobs}

    def _notes(self, pattern: str) -> list[list[tuple[float, str, int]]]:
        """What was begun, by file: when, in which batch job, which first event."""
        files = sorted((self.folder / "notes").glob(pattern))
        lines = ([line.split() for line in file.read_text().splitlines()] for file in files)
        return [[(float(at), job, int(first)) for at, job, first in rows] for rows in lines]

    def _lost(self, pattern: str, finished: dict[int, int], ends: dict[str, float]) -> float:
        """From their begin to the end of their allocation, those that have no end; each core has one in flight at most."""
        last = {(first, at, job) for rows in self._notes(pattern) for at, job, first in rows if job in ends}
        kept: dict[int, float] = {}
        for first, at, _ in last:
            if first in finished:
                kept[first] = max(at, kept.get(first, 0.0))
        return sum(max(0.0, ends[job] - at) for first, at, job in last if kept.get(first) != at)

    def _startup(self, starts: dict[str, float], nodes: dict[str, int]) -> float:
        """Mean over cores: from the batch system's start of the allocation to the first range, or job."""
        first: dict[str, list[float]] = {}
        ranges = [rows[0] for rows in self._notes("range-*")]
        jobs = [row for rows in self._notes("job-*") for row in rows]
        for at, job, _ in ranges + jobs:
            if job in starts:
                first.setdefault(job, []).append(at - starts[job])
        cores = self.scenario.cores
        seconds = [s for job, each in first.items() for s in sorted(each)[: nodes[job] * cores]]
        return statistics.fmean(seconds) if seconds else 0.0

    @staticmethod
    def _host_start(job: int, rows: list[Row], began: float) -> float:
        at = [
            _seconds(r["StartTime"], began) - began
            for r in rows
            if r["JobId"] == str(job) and int(r["NodeCnt"])
        ]
        return at[0] if at else float("nan")


def _seconds(text: str, unknown: float) -> float:
    """Unix seconds of a time of Slurm's accounting, which is local and whole."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return unknown
