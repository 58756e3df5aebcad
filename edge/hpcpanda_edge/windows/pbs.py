"""Backfill windows of PBS Professional and OpenPBS, from ``pbsnodes``, ``qstat`` and ``pbs_rstat``.

Formats are those of pbsnodes(8B), qstat(1B), pbs_rstat(1B), pbs_node_attributes(7B) and pbs_job_attributes(7B),
version 19 and later, which print JSON (https://github.com/openpbs/openpbs/tree/master/doc/man1). Torque is another
program of the same name and does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hpcpanda.domain.errors import CorruptData
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda_edge.windows.commands import CallLimits, output_of
from hpcpanda_edge.windows.free_nodes import Claim, windows_of
from hpcpanda_edge.windows.times import ctime_time

PBSNODES: Final = ("pbsnodes", "-a", "-F", "json")
QSTAT: Final = ("qstat", "-f", "-F", "json")
PBS_RSTAT: Final = ("pbs_rstat", "-f")

_VNODE: Final = re.compile(r"\(?([A-Za-z0-9_.\-\[\]]{1,255})(?::[^+()]*)?\)?")
_RESERVATION: Final = re.compile(r"(?:Resv ID|Name):[ \t]*(\S+)")
_RESERVE_START: Final = re.compile(r"^[ \t]*reserve_start[ \t]*=[ \t]*(\S.{0,99})$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VNode:
    """A node as PBS sees it."""

    name: str
    free: bool
    """Whole: in state free, without jobs, nothing assigned."""
    queue: str | None = None
    """The only queue that it serves."""
    reservations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A job that is expected to start."""

    start: datetime
    nodes: frozenset[str] | None = None
    count: int | None = None
    queue: str | None = None


def parse_nodes(text: str) -> tuple[VNode, ...]:
    """The output of :data:`PBSNODES`.

    Raises:
        CorruptData: it is not JSON with nodes in it.
    """
    nodes = _mapping(_document("pbsnodes", text).get("nodes"))
    found = []
    for name, value in nodes.items():
        if not isinstance(value, dict) or "state" not in value:
            continue  # an entry {"Error": ...} stands for a node that is not known
        states = {s.strip() for s in str(value["state"]).split(",")}
        assigned = _mapping(value.get("resources_assigned"))
        used = any(_number(assigned.get(key)) for key in ("ncpus", "naccelerators", "ngpus"))
        queue = value.get("queue")
        found.append(
            VNode(
                name=name,
                free=states == {"free"} and not value.get("jobs") and not used,
                queue=queue if isinstance(queue, str) and queue else None,
                reservations=_words(value.get("resv")),
            )
        )
    if not found:
        raise CorruptData("pbsnodes names no node")
    return tuple(found)


def parse_jobs(text: str) -> tuple[PlannedJob, ...]:
    """The jobs in the output of :data:`QSTAT` that wait and have an estimated start.

    Raises:
        CorruptData: it is not JSON.
    """
    jobs = []
    for value in _mapping(_document("qstat", text).get("Jobs")).values():
        job = _mapping(value)
        if job.get("job_state") not in {"Q", "H", "W", "T", "S"}:
            continue
        estimated = _mapping(job.get("estimated"))
        start = ctime_time(estimated.get("start_time", job.get("estimated.start_time")))
        if start is None:
            continue
        queue = job.get("queue")
        jobs.append(
            PlannedJob(
                start=start,
                nodes=_vnodes(estimated.get("exec_vnode", job.get("estimated.exec_vnode"))),
                count=_number(_mapping(job.get("Resource_List")).get("nodect")) or None,
                queue=queue if isinstance(queue, str) and queue else None,
            )
        )
    return tuple(jobs)


def parse_reservations(text: str) -> dict[str, datetime]:
    """Start of each reservation in the output of :data:`PBS_RSTAT`, by its id without the server's name."""
    starts: dict[str, datetime] = {}
    found = list(_RESERVATION.finditer(text))
    for at, record in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(text)
        line = _RESERVE_START.search(text, record.end(), end)
        start = ctime_time(line.group(1)) if line else None
        if start is not None:
            starts[_short(record.group(1))] = start
    return starts


def find_windows(
    nodes: Sequence[VNode],
    jobs: Sequence[PlannedJob],
    reservations: Mapping[str, datetime],
    *,
    queue: str | None,
    now: datetime,
) -> tuple[BackfillWindow, ...]:
    """Free nodes until they are planned for somebody else.

    Nodes that are bound to another queue, or to a reservation of unknown start, are left out.
    """
    free = [
        node
        for node in nodes
        if node.free
        and node.queue in {None, queue}
        and all(_short(name) in reservations for name in node.reservations)
    ]
    claims = [*_job_claims(jobs, queue, now)]
    for node in free:
        for name in node.reservations:
            start = (reservations[_short(name)] - now).total_seconds()
            claims.append(Claim(start_s=start, nodes=frozenset({node.name})))
    return windows_of({queue or "": [node.name for node in free]}, claims)


def _job_claims(jobs: Sequence[PlannedJob], queue: str | None, now: datetime) -> Iterator[Claim]:
    for job in jobs:
        if job.nodes is not None or queue is None or job.queue in {None, queue}:
            yield Claim(start_s=(job.start - now).total_seconds(), nodes=job.nodes, count=job.count)


class PbsReader:
    """Asks the PBS client programs: two or three calls a look."""

    def __init__(
        self,
        *,
        queue: str | None = None,
        limits: CallLimits | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = queue
        self._limits = limits or CallLimits()
        self._now = now

    async def read(self) -> tuple[BackfillWindow, ...]:
        """The windows of the queue."""
        nodes = parse_nodes(await output_of(PBSNODES, self._limits))
        jobs = parse_jobs(await output_of(QSTAT, self._limits))
        reserved = any(node.free and node.reservations for node in nodes)
        reservations = parse_reservations(await output_of(PBS_RSTAT, self._limits)) if reserved else {}
        return find_windows(nodes, jobs, reservations, queue=self._queue, now=self._now())


def _document(program: str, text: str) -> dict[str, object]:
    """The JSON object that a program printed; control characters inside strings are accepted, as PBS prints them."""
    try:
        document = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{program} did not print JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise CorruptData(f"{program} printed JSON that is not an object")
    return document


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _words(value: object) -> tuple[str, ...]:
    """A list of strings, or the words of a string."""
    words = value if isinstance(value, list) else str(value).replace(",", " ").split() if value else []
    return tuple(str(w).strip() for w in words if str(w).strip())


def _number(value: object) -> int:
    """An amount as PBS prints it, number or digits; 0 for anything else."""
    if isinstance(value, int):
        return value
    found = re.match("[0-9]{1,15}", str(value)) if value else None
    return int(found.group()) if found else 0


def _short(reservation: str) -> str:
    return reservation.split(".", 1)[0]


def _vnodes(value: object) -> frozenset[str] | None:
    """Names in ``(n1:ncpus=64)+(n2:ncpus=64)``; None when there is nothing of that kind."""
    if not isinstance(value, str):
        return None
    found = (_VNODE.fullmatch(part.strip().strip("()")) for part in value.split("+"))
    names = frozenset(match.group(1) for match in found if match)
    return names or None
