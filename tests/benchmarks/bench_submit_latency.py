"""From ``submit`` to the first event running, with an edge that waits for work, and where the time goes.

python tests/benchmarks/bench_submit_latency.py [RUNS]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcpanda.domain.outputs import Output
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.journal import read_journal
from tests.support import chaos_payload
from tests.support.services import Services, wait_for_task, wait_until

STAGES = ("head runs", "pack launched", "agent's journal open", "first event runs")


def main() -> None:
    """Print the median of several runs; each is a task of its own in an allocation of its own."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder))
        services.start_dispatcher()
        services.start_edge()
        try:
            with services.client() as client:
                wait_until(lambda: bool(client.edges()), "the edge's registration")
                times = [one_run(services, client.submit, client) for _ in range(runs)]
        finally:
            services.stop()
    for name, column in zip(STAGES, zip(*times, strict=True), strict=True):
        print(
            f"{name:22} {statistics.median(column):6.2f} s after submit (all: {', '.join(f'{c:.2f}' for c in column)})"
        )


def one_run(services: Services, submit, client) -> list[float]:
    """Seconds from the call of submit to each stage."""
    spec = TaskSpec(
        name="latency",
        events=4000,
        payload=CallablePayload(
            call="chaos_payload:generate",
            python_path=(str(Path(chaos_payload.__file__).parent),),
            settings={"event_us": 1000.0},
        ),
        output=Output(file="out.h5"),
    )
    began = time.time()
    task_id = submit(spec).task_id
    events = services.spool / "tasks" / str(task_id) / "events"
    entries = None

    def first_entries() -> bool:
        nonlocal entries
        for path in events.glob("*.journal"):
            part = read_journal(path)
            if len(part.entries):
                entries = (path, part)
                return True
        return False

    wait_until(first_entries, "the first event")
    assert entries is not None
    path, part = entries
    allocation = path.name.split("-")[0]
    notes = [
        json.loads(line)
        for line in (services.spool / "allocations" / allocation / "history.jsonl").read_text().splitlines()
    ]
    at = {n["what"]: n["at"] for n in notes}
    marks = [
        at["allocation-started"],
        at["pack-started"],
        part.header.started,
        float(part.entries["start"].min()),
    ]
    wait_for_task(client, task_id)
    wait_until(
        lambda: (
            "allocation-ended" in (services.spool / "allocations" / allocation / "history.jsonl").read_text()
        ),
        "the allocation's end",
    )
    return [m - began for m in marks]


if __name__ == "__main__":
    main()
