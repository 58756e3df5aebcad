"""Backfill windows of Slurm, from what every user may ask: sinfo, squeue, scontrol and ``sbatch --test-only``.

Formats are those of sinfo(1), squeue(1), scontrol(1) and sbatch(1) of Slurm 20.11 to 25.05
(https://slurm.schedmd.com/man_index.html). Fields are separated by ``|``, which no name contains.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from hpcpanda.domain.errors import CorruptData, Unavailable
from hpcpanda.packing.windows import BackfillWindow, merge
from hpcpanda_edge.windows.commands import CallLimits, ask, output_of
from hpcpanda_edge.windows.free_nodes import Claim, Release, expected_claim, windows_of
from hpcpanda_edge.windows.hostlist import Expander
from hpcpanda_edge.windows.times import iso_time, slurm_duration

SINFO: Final = ("sinfo", "--Node", "--noheader", "--format=%N|%P|%T|%a|%l")
"""Node, partition (the default one with a star), state in long form, the partition's availability and its longest walltime."""
SQUEUE: Final = (
    "squeue",
    "--all",
    "--noheader",
    "--states=PENDING,RUNNING",
    "--format=%t|%P|%D|%S|%e|%Y|%r",
)
"""State, partitions, nodes, start (expected while pending), end, nodes planned for a pending job, reason."""
RESERVATIONS: Final = ("scontrol", "--oneliner", "show", "reservations")

_FREE: Final = frozenset({"idle", "planned", "plnd"})
_HARMLESS_FLAGS: Final = frozenset({"planned", "cloud", "dynamic_norm", "powered_down"})
_HARMLESS_SUFFIXES: Final = "-~"
"""Planned for a later job; powered down, and woken up by the job that gets it."""
_SUFFIXES: Final = "*~#!%$@^-"
"""sinfo(1), "NODE STATE CODES"."""
_TO_START: Final = re.compile(
    r"Job ([0-9]{1,18}) to start at (\S{1,40})(?: a)? using ([0-9]{1,12}) processors on(?: nodes)? (\S+)"
    r"(?: in partition (\S+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """A node in a partition."""

    name: str
    partition: str
    free: bool
    default: bool = False
    """The partition is the default one."""
    longest_s: float | None = None
    """The partition's longest walltime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """A running or pending job."""

    running: bool
    partitions: frozenset[str]
    nodes: int | None
    start: datetime | None = None
    """Expected, while it is pending."""
    end: datetime | None = None
    planned: str = ""
    """Host list of the nodes it is expected to get."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationLine:
    """Nodes set aside for somebody."""

    start: datetime
    end: datetime | None = None
    hosts: str = ""
    count: int | None = None
    partition: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedStart:
    """When and where a job would start, as ``sbatch --test-only`` tells."""

    start: datetime
    hosts: str
    partition: str | None = None


def is_free(state: str) -> bool:
    """Whether a node in this state can be given as a whole to a job that ends soon enough.

    Takes the forms of sinfo (``idle*``, ``idle~``, ``planned``) and of scontrol (``IDLE+PLANNED``).
    """
    base, *flags = state.strip().lower().split("+")
    bare = base.rstrip(_SUFFIXES)
    suffixes = base[len(bare) :]
    return bare in _FREE and set(suffixes) <= set(_HARMLESS_SUFFIXES) and set(flags) <= _HARMLESS_FLAGS


def parse_nodes(text: str) -> tuple[NodeLine, ...]:
    """The lines of :data:`SINFO`.

    Raises:
        CorruptData: not one line can be read.
    """
    nodes = []
    for line in text.splitlines():
        words = [w.strip() for w in line.split("|")]
        if len(words) < 5 or not words[0] or words[1] in {"", "*"}:
            continue
        name, partition, state, available, longest = words[:5]
        nodes.append(
            NodeLine(
                name=name,
                partition=partition.removesuffix("*"),
                default=partition.endswith("*"),
                free=available.lower() == "up" and is_free(state),
                longest_s=slurm_duration(longest),
            )
        )
    if not nodes:
        raise CorruptData(f"sinfo names no node that could be used; it printed {text.strip()[:80]!r}")
    return tuple(nodes)


def parse_jobs(text: str) -> tuple[JobLine, ...]:
    """The lines of :data:`SQUEUE`; what is no such line is passed over."""
    jobs = []
    for line in text.splitlines():
        words = [w.strip() for w in line.split("|", 6)]
        if len(words) < 6 or words[0].upper() not in {"R", "RUNNING", "PD", "PENDING"}:
            continue
        state, partitions, nodes, start, end, planned = words[:6]
        jobs.append(
            JobLine(
                running=state.upper().startswith("R"),
                partitions=frozenset(p for p in partitions.split(",") if p),
                nodes=_count(nodes),
                start=iso_time(start),
                end=iso_time(end),
                planned=planned,
                reason=words[6] if len(words) > 6 else "",
            )
        )
    return tuple(jobs)


def parse_reservations(text: str) -> tuple[ReservationLine, ...]:
    """The output of :data:`RESERVATIONS`, or of the same without ``--oneliner``."""
    reservations = []
    for record in re.split(r"(?:^|\s)ReservationName=", text)[1:]:
        start = iso_time(_value(record, "StartTime"))
        if start is None:
            continue
        partition = _value(record, "PartitionName")
        reservations.append(
            ReservationLine(
                start=start,
                end=iso_time(_value(record, "EndTime")),
                hosts=_value(record, "Nodes"),
                count=_count(_value(record, "NodeCnt")),
                partition=None if partition in {"", "(null)"} else partition,
            )
        )
    return tuple(reservations)


def parse_test_only(text: str) -> ExpectedStart | None:
    """The line ``sbatch: Job 7 to start at 2026-11-20T14:30:00 using 8 processors on nodes n[1-2] in partition p``.

    None when there is no such line: the request was refused.
    """
    found = _TO_START.search(text)
    start = iso_time(found.group(2)) if found else None
    if found is None or start is None:
        return None
    return ExpectedStart(start=start, hosts=found.group(4), partition=found.group(5))


def in_default_partition(nodes: Iterable[NodeLine]) -> tuple[NodeLine, ...]:
    """The nodes that a request without a partition may get.

    Raises:
        CorruptData: no partition is the default.
    """
    default = tuple(node for node in nodes if node.default)
    if not default:
        raise CorruptData("Slurm has no default partition: say scheduler.queue in the site file")
    return default


def find_windows(
    nodes: Sequence[NodeLine],
    jobs: Sequence[JobLine],
    reservations: Sequence[ReservationLine],
    now: datetime,
) -> tuple[BackfillWindow, ...]:
    """Free nodes until they are planned for somebody else."""
    free: defaultdict[str, list[str]] = defaultdict(list)
    longest: dict[str, float | None] = {}
    for node in nodes:
        longest[node.partition] = node.longest_s
        if node.free:
            free[node.partition].append(node.name)
    if not free:
        return ()
    claims = _Claims(now=now, free={q: len(n) for q, n in free.items()})
    return windows_of(free, [*claims.of_jobs(jobs), *claims.of_reservations(reservations)], longest)


@dataclass(slots=True, kw_only=True)
class _Claims:
    """Turns the plans of the batch system into claims on nodes."""

    now: datetime
    free: dict[str, int]
    expander: Expander = field(default_factory=Expander)

    def of_jobs(self, jobs: Iterable[JobLine]) -> Iterator[Claim]:
        """Pending jobs with an expected start; the first one without, as soon as running ones make room for it."""
        releases: defaultdict[str, list[Release]] = defaultdict(list)
        waiting: dict[str, JobLine] = {}
        for job in jobs:
            if job.running:
                for partition in job.partitions if job.end and job.nodes else ():
                    releases[partition].append(Release(end_s=self._until(job.end), nodes=job.nodes or 0))
            elif job.start is not None:
                yield Claim(
                    start_s=self._until(job.start),
                    nodes=self.expander.names(job.planned),
                    count=job.nodes,
                    queues=job.partitions,
                )
            elif job.reason.strip("()") == "Resources":
                for partition in job.partitions:
                    waiting.setdefault(partition, job)
        for partition, job in waiting.items():
            claim = expected_claim(
                job.nodes or 1, self.free.get(partition, 0), releases[partition], frozenset({partition})
            )
            if claim is not None:
                yield claim

    def of_reservations(self, reservations: Iterable[ReservationLine]) -> Iterator[Claim]:
        """Reservations that are not over."""
        for reservation in reservations:
            if reservation.end is None or reservation.end > self.now:
                yield Claim(
                    start_s=self._until(reservation.start),
                    nodes=self.expander.names(reservation.hosts),
                    count=reservation.count,
                    queues=frozenset({reservation.partition} if reservation.partition else ()),
                )

    def _until(self, moment: datetime | None) -> float:
        return max(0.0, (moment - self.now).total_seconds()) if moment else 0.0


class SlurmReader:
    """Asks Slurm's client programs: three short calls a look, none of which takes a scheduler lock for long."""

    def __init__(
        self,
        *,
        partition: str | None = None,
        limits: CallLimits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._partition = partition
        self._limits = limits or CallLimits()
        self._now = now

    async def read(self) -> tuple[BackfillWindow, ...]:
        """The windows of the partition, or of the default one."""
        only = (f"--partition={self._partition}",) if self._partition else ()
        nodes = parse_nodes(await output_of((*SINFO, *only), self._limits))
        jobs = parse_jobs(await output_of(SQUEUE, self._limits))
        reservations = parse_reservations(await output_of(RESERVATIONS, self._limits))
        if self._partition:
            return find_windows(nodes, jobs, reservations, self._now())
        found = find_windows(in_default_partition(nodes), jobs, reservations, self._now())
        return merge(replace(window, queue=None) for window in found)

    async def expected_start(self, nodes: int, seconds: float) -> ExpectedStart:
        """When an allocation of this shape would start. Nothing is submitted.

        Raises:
            Unavailable: Slurm would refuse it, or does not answer; says which words it used.
        """
        argv = [
            "sbatch",
            "--test-only",
            f"--nodes={nodes}",
            f"--time={math.ceil(seconds / 60)}",
            "--wrap=true",
        ]
        if self._partition:
            argv.append(f"--partition={self._partition}")
        answer = await ask(argv, self._limits)
        expected = parse_test_only(f"{answer.err}\n{answer.out}")
        if expected is None:
            raise Unavailable(f"sbatch --test-only tells no start: {answer.said}")
        return expected


def _count(text: str) -> int | None:
    """``4``, the lower end of ``4-8``; None for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})(?:-[0-9]{1,9})?", text.strip())
    return int(found.group(1)) if found else None


def _value(record: str, key: str) -> str:
    found = re.search(rf"(?:^|\s){key}=(\S*)", record)
    return found.group(1) if found else ""
