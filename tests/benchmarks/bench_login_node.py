"""What a running edge costs its login node: processor, memory, calls of the batch system, file operations in the spool.

python tests/benchmarks/bench_login_node.py [SECONDS] [QUEUED] [RUNNING]

The edge and the dispatcher are the real ones; Slurm's programs and the running allocations are those of
``tests.support.login_node``. File operations are counted with strace(1), afterwards, where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcpanda_edge import accounts
from hpcpanda_edge.batch_system.choose import make_scheduler
from hpcpanda_edge.quarantine import QuarantineKeeper
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.submitting import Submitter

from hpcpanda.allocation.spool import Spool
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.client.site_file import load_site
from hpcpanda.domain.exchange import Capacity, EdgeRegistration
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import Resources, TaskSpec
from hpcpanda.planning.actions import NewAllocation, PackPlan, Share
from tests.support.login_node import Programs
from tests.support.services import Services

NODES = 4
"""Nodes of an allocation."""
CORES = 64
EVENT_SECONDS = 10.0
SETTLE_S = 40.0
"""Left out at the begin: every allocation is looked at for the first time."""
TRACED_S = 60.0

_SITE = """
name = "{name}"
spool = "{spool}"
[nodes]
count = {nodes}
cores = {cores}
memory_mb = 240000
[scheduler]
executor = "slurm"
queue = "regular"
[launcher]
command = ["srun", "-n", "{{ranks}}"]
[allocation]
walltime_s = 14400
[limits]
allocations = {allocations}
"""


@dataclass(slots=True)
class LoginNode(Services):
    """Services whose site has a batch system."""

    allocations: int = 120

    def site_of(self, name: str, spool: Path) -> Path:
        """A site that allows so many allocations; everything else as by default."""
        path = self.folder / f"{name}.toml"
        nodes = self.allocations * NODES
        path.write_text(
            _SITE.format(name=name, spool=spool, nodes=nodes, cores=CORES, allocations=self.allocations)
        )
        return path


def main() -> None:
    """Measure, and print a table and the same as one line of JSON."""
    seconds, queued, running = (float(a) for a in (*sys.argv[1:], *("180", "100", "20")[len(sys.argv) - 1 :]))
    queued, running = int(queued), int(running)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = Programs(folder / "slurm", running=running)
        os.environ["PATH"] = programs.path
        services = LoginNode(folder, allocations=queued + running)
        heads: subprocess.Popen[bytes] | None = None
        try:
            services.start_dispatcher()
            filling = multiprocessing.get_context("fork").Process(
                target=lambda: asyncio.run(fill(services, queued + running))
            )  # in a process of its own, for PSI/J would go on asking there
            filling.start()
            filling.join()
            assert len(programs.jobs()) == queued + running, "not all allocations were submitted"
            heads = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.login_node",
                    programs.folder,
                    services.spool,
                    str(running),
                ],
                cwd=Path(__file__).parents[2],
            )
            services.start_edge()
            time.sleep(SETTLE_S)
            found = measure(services, programs, seconds)
            found |= count_file_operations(services)
            assert heads.poll() is None, "the heads have ended"
            services.check_alive("edge")
        finally:
            if heads is not None:
                heads.kill()
            services.stop()
    found = {"queued": queued, "running": running, "cores": running * NODES * CORES} | found
    for key, value in found.items():
        print(f"{key:32} {value}")
    print(json.dumps(found))


async def fill(services: LoginNode, allocations: int) -> None:
    """Have the edge's memory and the queue filled with allocations, by the edge's own steps."""
    with services.client() as client:
        spec = TaskSpec(
            name="load", events=10**9,
            payload=CallablePayload(call="nobody:calls"),
            output=Output(file="out.bin", format=OutputFormat.CONCAT),
            resources=Resources(event_seconds=EVENT_SECONDS),
        )  # fmt: skip
        task_id = client.submit(spec).task_id
    site = load_site(services.site_file)
    folder = StateFolder.of(site.spool)
    folder.create()
    store = Store(folder.database)
    spool = Spool(Path(site.spool))
    steps = Steps(store, spool, site)
    take_lease(services, site, store, folder.instance())
    share = len(accounts.ready_events(store, task_id)) // allocations
    assert share > NODES * CORES, "the dispatcher gave too little"
    pack = PackPlan(kind="work", nodes=NODES, work=(Share(task_id=task_id, events=share),))
    new = NewAllocation(nodes=NODES, walltime_s=site.allocation.walltime_s, packs=(pack,))
    with store.transaction():
        steps.act([new] * allocations, time.time())
    scheduler = make_scheduler(site.scheduler, folder.psij)
    submitter = Submitter(store, steps, spool, scheduler, QuarantineKeeper(spool, site))
    await submitter.submit_planned()
    store.close()


def take_lease(services: LoginNode, site: Site, store: Store, instance: str) -> None:
    """Register as the edge will, and take work for all allocations."""
    token = services.run("hpcpanda", "dispatcher", "token", "edge", site.name).stdout.strip()
    url = (services.state / "dispatcher" / "url").read_text().strip()
    cores = site.nodes.count * site.nodes.cores
    with DispatcherClient(url, token) as client:
        client.register_edge(site.name, EdgeRegistration(instance=instance, cores=cores))
        capacity = Capacity(
            instance=instance, cores=cores, seconds=site.allocation.lookahead_s, only="events"
        )
        grants = client.acquire(site.name, capacity)
    with store.transaction():
        accounts.take_grants(store, grants)


def measure(services: LoginNode, programs: Programs, seconds: float) -> dict[str, object]:
    """Processor and memory of the edge with all that it starts, and what it asks of the batch system and the dispatcher."""
    edge = psutil.Process(services.started["edge"].pid)
    calls, used, began = programs.calls(), processor(edge), time.monotonic()
    most = 0
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        most = max(most, sum(p.memory_info().rss for p in (edge, *edge.children(recursive=True))))
    took = time.monotonic() - began
    per_minute = {k: round(n * 60 / took, 2) for k, n in (programs.calls() - calls).items()}
    own, children = (round(100 * (b - a) / took, 2) for a, b in zip(used, processor(edge), strict=True))
    with services.client() as client:
        done = client.tasks().tasks[0].progress.done
    assert done, "nothing was committed"
    return {
        "seconds": round(took), "processor_percent": own, "processor_percent_of_children": children,
        "memory_mb": round(most / 2**20), "batch_commands_per_minute": per_minute, "events_committed": done,
    }  # fmt: skip


def processor(process: psutil.Process) -> tuple[float, float]:
    """Seconds of the process, and of its children that have ended."""
    times = process.cpu_times()
    return times.user + times.system, times.children_user + times.children_system


def count_file_operations(services: LoginNode) -> dict[str, object]:
    """File-system calls an hour that name a path or an open file of the spool."""
    if shutil.which("strace") is None:
        return {"spool_calls_per_hour": "strace is not installed"}
    trace = services.folder / "trace"
    pid = services.started["edge"].pid
    words = ["strace", "-f", "-q", "-y", "-e", "trace=%file,%desc", "-o", str(trace), "-p", str(pid)]
    tracer = subprocess.Popen(words)
    time.sleep(TRACED_S)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    kinds: Counter[str] = Counter()
    database: Counter[str] = Counter()
    spool = str(services.spool)
    for line in trace.read_text(errors="replace").splitlines():
        call = re.match(r"\d+\s+(\w+)\((.*)", line)
        if call is None or spool not in call[2]:
            continue
        (database if f"{spool}/edge/" in call[2] else kinds)[call[1]] += 1
    hour = 3600 / TRACED_S
    return {
        "spool_calls_per_hour": round(sum(kinds.values()) * hour),
        "by_kind": {k: round(n * hour) for k, n in kinds.most_common(8)},
        "own_database_calls_per_hour": round(sum(database.values()) * hour),
        "own_database_by_kind": {k: round(n * hour) for k, n in database.most_common(6)},
    }  # fmt: skip


if __name__ == "__main__":
    main()
