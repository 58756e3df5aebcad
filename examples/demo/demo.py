"""The whole chain on one machine, seen from outside: what a user would type, and two kills on the way.

Starts a dispatcher and an edge on loopback, submits 20 000 Z->mumu events from Pythia 8, kills one
worker and one whole allocation with SIGKILL, waits for the merged file, compares it with a serial
run of its first events, and draws the dimuon mass and the timelines. Stops what it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from hpcpanda.allocation.spool import STATUS, Spool, read_message
from hpcpanda.allocation.timeline_picture import draw_timelines
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.client.task_file import load_task
from hpcpanda.client.watch import describe, follow
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import Task
from hpcpanda.merge import digest_columns, digest_sample
from hpcpanda.payload.forms import prepare

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "demo-output"
TASK_FILE = ROOT / "examples" / "zmumu" / "task.toml"
SITE_FILE = ROOT / "site-configs" / "laptop.toml"
SAMPLE_EVENTS = 300
KILL_WORKER_AT, KILL_ALLOCATION_AT = 0.2, 0.5

console = Console(highlight=False)


def main() -> None:
    """Run the demo; leave with status 1 when anything is not as it should be."""
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "state").mkdir(parents=True)
    with ExitStack() as stack:
        client = start_services(stack)
        spec = load_task(TASK_FILE)
        task = client.submit(spec)
        say(f"task {task.task_id} submitted: {task.progress.total:,} Z->mumu events from Pythia 8")
        task = watch_and_kill(client, task.task_id)
        if task.state is not TaskState.DONE:
            raise SystemExit(f"the task ended as {task.state}: {task.message}")
        (output,) = client.outputs(task.task_id).files
        say(f"merged: {output.size / 1e6:.1f} MB, events {output.events}, digest {output.digest[:23]}...")
        verify(output)
        draw_mass(Path(output.path), OUT / "dimuon-mass.png")
        traces = wait_for_traces()
        draw_timelines(traces, OUT / "timeline.png")
    say("dispatcher and edge stopped")
    console.print(f"\n[bold]All is well after {time.monotonic() - began:.0f} s.[/bold] Look at:")
    for what, path in (
        ("merged events (HDF5)", Path(output.path)),
        ("manifest: digest, ranges, provenance", Path(output.manifest)),
        ("dimuon mass", OUT / "dimuon-mass.png"),
        ("what every core did, when", OUT / "timeline.png"),
        *(("the same for ui.perfetto.dev", trace) for trace in traces),
        ("logs", OUT / "dispatcher.log"),
        ("", OUT / "edge.log"),
    ):
        console.print(f"  {what:38} {path}", soft_wrap=True)


def say(text: str) -> None:
    """Print one line of the story."""
    console.print(f"[bold cyan]demo[/bold cyan] {text}", soft_wrap=True)


def start_services(stack: ExitStack) -> DispatcherClient:
    """Start a dispatcher and an edge with state of their own; both are stopped with the stack."""
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {"HPCPANDA_STATE": str(OUT / "state")}

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        log = stack.enter_context((OUT / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [bin_folder / words[0], *words[1:]], stdout=log, stderr=log, env=environment
        )
        stack.callback(stop, process)
        return process

    dispatcher = start("dispatcher", "hpcpanda", "dispatcher", "run")
    url_file = OUT / "state" / "dispatcher" / "url"
    wait_for(url_file.exists, "the dispatcher", dispatcher)
    start("edge", "hpcpanda-edge", "run", "--site", str(SITE_FILE), "--spool", str(OUT / "spool"))
    url, token = url_file.read_text().strip(), (url_file.parent / "user.token").read_text().strip()
    client = stack.enter_context(DispatcherClient(url, token))
    say(f"dispatcher answers at {url}; edge 'laptop' runs")
    return client


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL if that does not do."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(
    condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait up to 30 s for a condition."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise SystemExit(f"{what} did not come up; see the logs in {OUT}")
        time.sleep(0.05)


def watch_and_kill(client: DispatcherClient, task_id: int) -> Task:
    """Show progress until the task is final; kill a worker and an allocation on the way."""
    kills = [(KILL_WORKER_AT, kill_worker), (KILL_ALLOCATION_AT, kill_allocation)]
    said = 0.0
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        for task in follow(client, task_id):
            share = task.progress.done / task.progress.total
            if kills and share >= kills[0][0] and kills[0][1]():
                kills.pop(0)
            live.update(panel(task))
            if not console.is_terminal and time.monotonic() - said > 5:
                said = time.monotonic()
                cores = " ".join(f"{o:.0%}" for o in occupancy())
                say(f"{task.state}: {task.progress.done:,} done, {describe(task)}; each core: {cores}")
    if kills:
        raise SystemExit("the task ended before both kills were done")
    return task


def panel(task: Task) -> Table:
    """What is shown while the task runs."""
    grid = Table.grid(padding=(0, 2))
    p = task.progress
    width = 40
    filled = int(width * p.done / p.total)
    grid.add_row(
        str(task.state), f"[green]{'━' * filled}[/green]{'─' * (width - filled)} {p.done:,} of {p.total:,}"
    )
    grid.add_row("", describe(task))
    for core, busy in enumerate(occupancy()):
        grid.add_row(
            f"core {core}",
            f"[green]{'█' * round(busy * 20)}[/green]{'░' * (20 - round(busy * 20))} {busy:.0%}",
        )
    return grid


def running_allocation() -> tuple[str, int, tuple[float, ...]] | None:
    """Id, head's process and busy share of each core of the allocation that runs events now."""
    for folder in (OUT / "spool" / "allocations").glob("*"):
        try:
            status = read_message(Spool(OUT / "spool").allocation(folder.name).status, STATUS)
        except (FileNotFoundError, HpcPandaError):
            continue
        for pack in status.packs:
            if pack.state == "running" and pack.occupancy and Path(f"/proc/{status.head_pid}").exists():
                return status.allocation_id, status.head_pid, pack.occupancy
    return None


def occupancy() -> tuple[float, ...]:
    """Busy share of each core, as the pack last reported."""
    running = running_allocation()
    return running[2] if running else ()


def descendants(pid: int) -> list[int]:
    """All processes below one, parents first (proc(5))."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop(0)
        try:
            children = Path(f"/proc/{current}/task/{current}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
        todo += map(int, children)
    return found


def kill_worker() -> bool:
    """SIGKILL for one worker; whether there was one."""
    running = running_allocation()
    if running is None:
        return False
    worker = descendants(running[1])[-1]  # head, launcher, rank, fork server, worker: the deepest
    os.kill(worker, signal.SIGKILL)
    say(f"[red]killed worker process {worker}[/red] with SIGKILL; its range is run again")
    return True


def kill_allocation() -> bool:
    """SIGKILL for all processes of the running allocation at once; whether there was one."""
    running = running_allocation()
    if running is None:
        return False
    allocation, head, _ = running
    victims = [head, *descendants(head)]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    say(
        f"[red]killed the whole allocation {allocation}[/red], {len(victims)} processes, with SIGKILL; what is journalled is kept"
    )
    return True


def verify(output: OutputFile) -> None:
    """Run the first events serially in this process and compare digests of the content."""
    began = time.monotonic()
    spec = load_task(TASK_FILE)
    folder = OUT / "serial"
    folder.mkdir()
    result = prepare(spec).runner(folder).run(0, SAMPLE_EVENTS)
    serial = digest_columns(result)
    merged = digest_sample(Path(output.path), SAMPLE_EVENTS)
    if serial != merged:
        raise SystemExit(f"the merged file differs from a serial run: {merged} is not {serial}")
    say(
        f"first {SAMPLE_EVENTS} events equal a serial run in this process ({time.monotonic() - began:.1f} s): {serial[:23]}..."
    )


def draw_mass(merged: Path, picture: Path) -> None:
    """Histogram of the dimuon mass of all events."""
    import h5py
    from matplotlib.figure import Figure

    with h5py.File(merged) as file:
        mass = file["dimuon_mass"][:]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(mass, bins=np.linspace(60, 120, 121), histtype="stepfilled", color="tab:blue")
    axes.set_xlabel("dimuon mass [GeV]")
    axes.set_ylabel("events per 0.5 GeV")
    axes.set_title(f"Pythia 8, $Z/\\gamma^*\\to\\mu\\mu$ at 13.6 TeV, {len(mass):,} events", loc="left")
    figure.savefig(picture, dpi=130)
    say(f"dimuon mass: median {np.median(mass):.2f} GeV")


def wait_for_traces() -> list[Path]:
    """The trace files of the allocations that ran events; the edge writes one when an allocation has ended."""
    folder = OUT / "spool" / "allocations"

    def complete() -> bool:
        return all((f / "timeline.json").exists() for f in folder.iterdir() if (f / "history.jsonl").exists())

    wait_for(complete, "the timelines")
    return sorted(folder.glob("*/timeline.json"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    main()
