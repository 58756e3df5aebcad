"""The mixed work of the campaign, and what must have become of it at the end."""

from __future__ import annotations

import random
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, RangePolicy, TaskSpec
from hpcpanda.domain.task_views import Task
from hpcpanda.merge import digest_columns
from tests.support import campaign_payload

PROGRAM = Path(campaign_payload.__file__)
ARCHIVE = Output(file="jobs.zip", format=OutputFormat.ZIP)
SLEEP = 'd=$(({least} + ({seed} + $1 * 67) % {spread})); sleep $((d / 10)).$((d % 10)); echo "job $1" > out'
TROUBLE = (
    'case "$1" in {fails}) echo "no such run: $1" >&2; exit 3;; '
    '{leaks}) exec {python} -c "a = bytearray(600 << 20); import time; time.sleep(120)";; '
    "{hangs}) sleep 3600;; esac; {work}"
)
RANKS_A_NODE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything; times of jobs in tenths of a second."""

    serial: int
    wide: dict[int, int]
    """Jobs by their cores."""
    mpi: int
    troubled: int
    events: int
    event_s: float
    least: int
    spread: int
    mpi_s: float
    hang_s: float
    """Time limit of the jobs of which one hangs."""

    @property
    def jobs(self) -> int:
        """All jobs."""
        return self.serial + sum(self.wide.values()) + self.mpi + self.troubled


FULL = Scale(
    serial=110, wide={2: 40, 3: 14, 4: 16}, mpi=10, troubled=10,
    events=50_000, event_s=0.05, least=50, spread=180, mpi_s=10.0, hang_s=40.0,
)  # fmt: skip
SHORT = Scale(
    serial=16, wide={2: 6, 3: 2, 4: 2}, mpi=2, troubled=6,
    events=3_000, event_s=0.04, least=10, spread=30, mpi_s=2.0, hang_s=8.0,
)  # fmt: skip


@dataclass(slots=True)
class Campaign:
    """Tasks of one seed, submitted together."""

    scale: Scale
    seed: int
    failing: dict[int, str] = field(default_factory=dict)
    """Troubled jobs that must fail, each with words of the reason."""
    ids: dict[str, int] = field(default_factory=dict)
    """Tasks by the names of their specifications."""

    def specs(self) -> Iterator[TaskSpec]:
        """The tasks, always the same for a seed. No job is tried twice, so that nothing that is done to the nodes may count as an attempt."""
        dice, scale = random.Random(self.seed), self.scale
        yield self._jobs("serial", scale.serial, JobRequest(memory_mb=150, walltime_s=60.0))
        yield TaskSpec(
            name="mpi",
            jobs=scale.mpi,
            payload=JobPayload(
                command=(sys.executable, str(PROGRAM), "{job}", str(scale.mpi_s)),
                outputs=("out",),
                environment={"PYTHONPATH": str(PROGRAM.parents[2])},
            ),
            job=JobRequest(nodes=2, ranks_per_node=RANKS_A_NODE, memory_mb=500, walltime_s=60.0),
            output=ARCHIVE,
            loss=LossPolicy(attempts=1),
        )
        for cores, count in scale.wide.items():
            yield self._jobs(f"cores-{cores}", count, JobRequest(cores=cores, memory_mb=200, walltime_s=60.0))
        yield self._troubled(dice)
        yield self._events()

    def submit(self, client: DispatcherClient) -> None:
        """Submit all tasks."""
        for spec in self.specs():
            self.ids[spec.name] = client.submit(spec).task_id

    def check(self, client: DispatcherClient) -> None:
        """Every task is in the right state, with all its jobs and events once."""
        for name, task_id in self.ids.items():
            task = client.task(task_id)
            failed = {f.event: f.error for f in client.failures(task_id).events}
            expected = self.failing if name == "troubled" else {}
            assert sorted(failed) == sorted(expected), f"{name}: {failed}"
            for job, words in expected.items():
                assert words in failed[job], failed[job]
            state = TaskState.FINISHED if expected else TaskState.DONE
            assert task.state is state, f"{name}: {task.state}, {task.message}"
            (output,) = client.outputs(task_id).files
            good = IntervalSet.span(0, task.spec.event_count)
            for job in expected:
                good -= IntervalSet.span(job, job + 1)
            assert output.events == good, name
            if name == "events":
                assert output.digest == self.serial_digest(), "the digest differs from that of a serial run"
            else:
                _check_archive(Path(output.path), good, mpi=name == "mpi")

    def serial_digest(self) -> str:
        """Digest of all events in one call, without their sleeps."""
        return digest_columns(campaign_payload.generate(_Serial(self.seed, self.scale.events)))  # type: ignore[arg-type]

    def ended(self, client: DispatcherClient) -> list[Task]:
        """Tasks that are in a final state."""
        return [t for i in self.ids.values() if (t := client.task(i)).state.final]

    def _jobs(self, name: str, count: int, request: JobRequest) -> TaskSpec:
        return TaskSpec(
            name=name,
            jobs=count,
            payload=_command(self._sleep()),
            job=request,
            output=ARCHIVE,
            loss=LossPolicy(attempts=1),
        )

    def _troubled(self, dice: random.Random) -> TaskSpec:
        scale = self.scale
        *fails, leaks, hangs = dice.sample(range(scale.troubled), min(5, scale.troubled - 1))
        self.failing = dict.fromkeys(fails, "exit status 3")
        self.failing |= {leaks: "the limit is 200 MiB", hangs: "walltime"}
        script = TROUBLE.format(
            fails="|".join(map(str, fails)),
            leaks=leaks,
            hangs=hangs,
            python=sys.executable,
            work=self._sleep(),
        )
        return TaskSpec(
            name="troubled",
            jobs=scale.troubled,
            payload=_command(script),
            job=JobRequest(memory_mb=200, walltime_s=scale.hang_s),
            output=ARCHIVE,
            loss=LossPolicy(max_failed_events=len(self.failing), attempts=1, retries=0),
        )

    def _events(self) -> TaskSpec:
        return TaskSpec(
            name="events",
            events=self.scale.events,
            seed=self.seed,
            payload=CallablePayload(
                call="campaign_payload:generate",
                python_path=(str(PROGRAM.parent),),
                settings={"event_s": self.scale.event_s},
            ),
            ranges=RangePolicy(target_seconds=0.5),
            output=Output(file="events.h5"),
        )

    def _sleep(self) -> str:
        return SLEEP.format(least=self.scale.least, spread=self.scale.spread, seed=self.seed)


class _Serial:
    """What a serial run sees."""

    def __init__(self, seed: int, events: int) -> None:
        self.first, self.last, self.seed = 0, events, seed
        self.settings: dict[str, float] = {}


def _command(script: str) -> JobPayload:
    return JobPayload(command=("sh", "-c", script, "sh", "{job}"), outputs=("out",))


def _check_archive(path: Path, jobs: IntervalSet, *, mpi: bool) -> None:
    """The archive has the output of each of these jobs once, and nothing else."""
    expected = {job for r in jobs.ranges() for job in range(r.first, r.last)}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(expected)
        numbers = [int(name.partition("/")[0]) for name in names]
        assert sorted(numbers) == sorted(expected)
        for name, job in zip(names, numbers, strict=True):
            text = archive.read(name).decode()
            ranks = 2 * RANKS_A_NODE
            tail = f"ranks {ranks} sum {ranks * (ranks + 1) // 2}\n" if mpi else ""
            assert re.fullmatch(rf"0*{job}/out", name)
            assert text == f"job {job}\n{tail}"
