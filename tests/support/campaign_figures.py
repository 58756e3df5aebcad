"""How busy the cores of a campaign's allocations were: by their traces, and by what its tasks needed and Slurm gave."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcpanda.client.sdk import DispatcherClient
from tests.support.slurm import SlurmCluster


@dataclass(frozen=True, slots=True)
class Life:
    """One allocation as its trace tells."""

    allocation_id: str
    began: float
    seconds: float
    core_seconds: float
    occupancy: float
    finished: float
    preempted: bool
    trace: Path

    def __str__(self) -> str:
        told = ", told to end" if self.preempted else ""
        return (
            f"{self.allocation_id}: {self.core_seconds:.0f} core-seconds in {self.seconds:.0f} s,"
            f" at work {self.occupancy:.1%}, for what was finished {self.finished:.1%}{told}"
        )


def lives(spool: Path) -> list[Life]:
    """All allocations of a spool that have a trace, in order of their begin."""
    found = []
    for path in (spool / "allocations").glob("*/timeline.json"):
        document: dict[str, Any] = json.loads(path.read_text())
        facts, events = document["otherData"], document["traceEvents"]
        found.append(
            Life(
                allocation_id=facts["allocation"],
                began=facts["began"],
                seconds=facts["seconds"],
                core_seconds=facts["core_seconds"],
                occupancy=facts["occupancy"],
                finished=facts["finished"],
                preempted=any(e["name"] == "told-to-end" for e in events),
                trace=path,
            )
        )
    return sorted(found, key=lambda life: life.began)


def weighed(found: list[Life]) -> tuple[float, float]:
    """Share of all core-seconds at work, and for what was finished, 0..1."""
    total = max(1e-9, sum(life.core_seconds for life in found))
    return (
        sum(life.core_seconds * life.occupancy for life in found) / total,
        sum(life.core_seconds * life.finished for life in found) / total,
    )


def needed_core_seconds(client: DispatcherClient, tasks: Collection[int], *, cores_a_node: int) -> float:
    """What the successful jobs held, by the reports beside the archives, and what the events are known to cost."""
    total = 0.0
    for task_id in tasks:
        spec = client.task(task_id).spec
        request = spec.job_request
        if request is None:
            assert spec.payload.form == "callable"
            total += spec.event_count * float(spec.payload.settings["event_s"])
            continue
        (output,) = client.outputs(task_id).files
        held = request.cores if request.nodes == 1 else request.nodes * cores_a_node
        reports = map(json.loads, Path(f"{output.path}.jobs.jsonl").read_text().splitlines())
        total += sum(report["wall_s"] * held for report in reports if report["exit_status"] == 0)
    return total


def given_node_seconds(cluster: SlurmCluster, urgent: Collection[int]) -> float:
    """Node-seconds of all runs of allocations, by Slurm's own accounting, in whole seconds."""
    return sum(
        int(row["NodeCnt"]) * (_seconds(row["EndTime"]) - _seconds(row["StartTime"]))
        for row in cluster.accounting()
        if int(row["JobId"]) not in urgent and row["StartTime"] != "Unknown"
    )


def allocations_that_never_ran(cluster: SlurmCluster, urgent: Collection[int]) -> int:
    """Batch jobs that were cancelled before they began."""
    return sum(
        int(row["JobId"]) not in urgent and row["NodeList"] in ("", "(null)") for row in cluster.accounting()
    )


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
