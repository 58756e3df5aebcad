"""Packs and bare MPI programs for benchmarks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from hpcpanda.allocation.launch import launch_command
from hpcpanda.allocation.pack_run import PACK_RUN, PackRun
from hpcpanda.allocation.spool import Spool, write_message
from hpcpanda.domain.site import LauncherSettings, NodeSettings, Site
from hpcpanda.events.journal import Entries, read_journal
from tests.support.allocation import event_pack


def mpi_program(code: str, *, ranks: int) -> str:
    """What a Python program prints that runs on so many ranks."""
    command = [*launch_command(LauncherSettings(), ranks), sys.executable, "-c", code]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def coordination_seconds(launcher: int) -> float:
    """Processor seconds of a pack's launcher, ranks and fork servers, workers left out."""
    level, seconds = [psutil.Process(launcher)], 0.0
    for _ in range(4):  # launcher, proxy, ranks, fork servers
        below = []
        for process in level:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
                below += process.children()
        level = below
    return seconds


def run_pack(
    call: str, events: int, *, nodes: int, cores: int, max_events: int | None
) -> tuple[Entries, float]:
    """Run ``events`` events of a function of ``allocation_payload`` in a pack.

    Gives the journal entries, and the mean number of cores that all but the workers used meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder))
        spool.events(1).mkdir(parents=True)
        allocation = spool.allocation("bench")
        allocation.create()
        site = Site(
            name="bench",
            spool=folder,
            nodes=NodeSettings(count=nodes, cores=cores, memory_mb=2000, oversubscribe=nodes > 1),
        )
        run = PackRun(
            allocation_id="bench",
            spool=folder,
            site=site,
            pack=event_pack(
                (1, 0, events), nodes=nodes, call=call, target_seconds=2.0, max_events=max_events
            ),
            incarnation=0,
            deadline=time.time() + 600,
        )
        path = allocation.packs / "p.json"
        write_message(path, PACK_RUN, run)
        command = launch_command(LauncherSettings(), nodes)
        with subprocess.Popen(
            [*command, sys.executable, "-m", "hpcpanda.allocation.work_pack", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as pack:
            assert pack.stdin is not None
            assert pack.stdout is not None
            used: list[tuple[float, float]] = []
            for line in pack.stdout:
                used.append((time.monotonic(), coordination_seconds(pack.pid)))
                status = json.loads(line)
                assert status["error"] is None, status["error"]
                if status["idle"] and sum(t["done"] for t in status["tasks"]) == events:
                    pack.stdin.write(b'{"kind":"drain","grace_s":5}\n')
                    pack.stdin.close()
                    break
            for _ in pack.stdout:
                continue
        entries: Entries = np.concatenate(
            [read_journal(p).entries for p in spool.events(1).glob("*.journal")]
        )
        assert int((entries["last"] - entries["first"]).sum()) == events
        (began, first), (ended, last) = used[0], used[-1]
        return entries, (last - first) / (ended - began)
