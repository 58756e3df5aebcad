"""A login node as an edge sees it, without a machine: Slurm's client programs, and the heads of allocations that run.

The programs are small scripts in a folder for PATH; each call is one line of ``calls``. The heads are one process,
``python -m tests.support.login_node FOLDER SPOOL HEADS``: it writes status files and journals as that many heads and their
node agents do, with the same code, and finishes events in the time that they are said to take.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from hpcpanda.allocation.plan import (
    AddWork,
    AllocationPlan,
    AllocationStatus,
    LeasedEvents,
    PackStatus,
    TaskProgress,
    TopUp,
    WorkPack,
)
from hpcpanda.allocation.spool import (
    MESSAGE,
    PLAN,
    STATUS,
    AllocationFolder,
    Spool,
    journal_name,
    read_message,
    write_message,
)
from hpcpanda.events.columns import BYTES
from hpcpanda.events.journal import ENTRY, JournalHeader
from hpcpanda.events.recorder import Recorder

NODES: Final = 3000
"""Nodes of the machine that ``sinfo`` lists."""
OTHERS: Final = 1500
"""Jobs of other users that ``squeue --all`` lists."""

_LOG: Final = 'cd "$(dirname "$0")" && echo "${0##*/} $*" >> calls\n'
_PROGRAMS: Final = {
    "sbatch": """
case $1 in --test-only) echo "sbatch: Job 1 to start at 2030-01-01T00:00:00 using 1 processors on n1" >&2; exit 0 ;; esac
name=$(sed -n 's/^#SBATCH --job-name="*\\([^"]*\\)"*$/\\1/p' "$1")
id=$(($(wc -l < jobs) + 1))
echo "$id $name" >> jobs
echo "Submitted batch job $id"
""",
    "squeue": """
case "$*" in
*--name=*) name=${*##*--name=}; exec awk -v name="${name%% *}" '$2 == name { print $1 }' jobs ;;
*--Format=*) echo "JOBID ST"
    exec awk -v running="$(cat running)" '{ print $1, $1 <= running ? "R" : "PD" }' jobs ;;
*) exec cat others ;;
esac
""",
    "sinfo": "exec cat nodes\n",
    "scontrol": "echo 'No reservations in the system'\n",
    "scancel": "exit 0\n",
}


class Programs:
    """The batch system's programs, in a folder."""

    def __init__(self, folder: Path, *, running: int) -> None:
        self.folder = folder
        folder.mkdir()
        for name, script in _PROGRAMS.items():
            program = folder / name
            program.write_text(f"#!/bin/sh\n{_LOG}{script}")
            program.chmod(0o755)
        (folder / "calls").touch()
        (folder / "jobs").touch()
        (folder / "running").write_text(f"{running}\n")
        lines = (f"n{n:05d}|regular*|allocated|up|1-00:00:00\n" for n in range(NODES))
        (folder / "nodes").write_text("".join(lines))
        job = "R|regular|2|2026-01-01T00:00:00|2030-01-01T00:00:00||None\n"
        (folder / "others").write_text(job * OTHERS)

    @property
    def path(self) -> str:
        """PATH on which they come first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def jobs(self) -> list[str]:
        """Names of the jobs, as submitted."""
        return [line.split()[1] for line in (self.folder / "jobs").read_text().splitlines()]

    def calls(self) -> Counter[str]:
        """How often each program was called so far, told apart by the first option."""
        lines = (self.folder / "calls").read_text().splitlines()
        return Counter(" ".join(line.split()[:2]) for line in lines)


class Head:
    """One running allocation: a pack of events on all its nodes."""

    def __init__(self, spool: Spool, folder: AllocationFolder, plan: AllocationPlan) -> None:
        (pack,) = plan.packs
        assert isinstance(pack, WorkPack)
        (work,) = pack.work
        self._folder = folder
        self._pack = pack
        self._task_id = work.task_id
        self._cores = plan.nodes * plan.site.nodes.cores
        self._event_seconds = work.event_seconds or work.spec.resources.event_seconds or 1.0
        self._allocation_id = plan.allocation_id
        self._left: deque[tuple[int, int, int]] = deque()
        self._take(work.events)
        self._inbox_read = self._done = 0
        self._owed = 0.0
        self._last = time.time()
        events = spool.events(work.task_id)
        events.mkdir(parents=True, exist_ok=True)
        self._ranks = [self._recorder(events, plan, rank) for rank in range(plan.nodes)]

    def step(self) -> None:
        """Finish what is finished by now, and say how it stands."""
        while (message := self._next_message()) is not None:
            if isinstance(message, TopUp):
                self._take(message.events)
            elif isinstance(message, AddWork):
                self._take(message.work.events)
            self._inbox_read += 1
        now = time.time()
        self._owed += (now - self._last) * self._cores / self._event_seconds
        self._last = now
        count = min(int(self._owed), self._waiting)
        self._owed -= count
        for recorder, share in zip(
            self._ranks, np.array_split(list(self._finished(count)), len(self._ranks)), strict=True
        ):
            if len(share):
                self._record(recorder, share, now)
        self._done += count
        self._say(now)

    @property
    def _waiting(self) -> int:
        return sum(last - first for _, first, last in self._left)

    def _next_message(self) -> object | None:
        path = self._folder.message(self._inbox_read + 1)
        return read_message(path, MESSAGE) if path.exists() else None

    def _take(self, events: tuple[LeasedEvents, ...]) -> None:
        self._left.extend((e.epoch, r.first, r.last) for e in events for r in e.events.ranges())

    def _finished(self, count: int) -> Iterator[tuple[int, int]]:
        """Epoch and number of the next events."""
        while count:
            epoch, first, last = self._left.popleft()
            end = min(last, first + count)
            yield from ((epoch, event) for event in range(first, end))
            count -= end - first
            if end < last:
                self._left.appendleft((epoch, end, last))

    def _record(self, recorder: Recorder, events: np.ndarray, now: float) -> None:
        """Each event is a range of its own, with an output of 64 bytes."""
        entries = np.zeros(len(events), dtype=ENTRY)
        entries["epoch"], entries["first"] = events[:, 0], events[:, 1]
        entries["last"] = entries["first"] + 1
        entries["offset"], entries["length"] = np.arange(len(events)) * 64, 64
        entries["wall_s"] = entries["cpu_s"] = self._event_seconds
        entries["start"] = now - self._event_seconds
        recorder.record(entries, [bytes(64) * len(events)])

    def _recorder(self, events: Path, plan: AllocationPlan, rank: int) -> Recorder:
        header = JournalHeader(
            task_id=self._task_id, allocation_id=plan.allocation_id, pack_id=self._pack.pack_id, incarnation=0,
            rank=rank, host=f"n{rank}", cores=plan.site.nodes.cores, started=self._last,
        )  # fmt: skip
        recorder = Recorder(
            events / journal_name(plan.allocation_id, self._pack.pack_id, 0, rank), header,
            roll_bytes=plan.site.limits.open_segment_mb << 20, sync_s=plan.site.allocation.sync_s,
            on_durable=lambda _: None,
        )  # fmt: skip
        recorder.fix_schema(BYTES)
        return recorder

    def _say(self, now: float) -> None:
        backlog_s = self._waiting * self._event_seconds / self._cores
        task = TaskProgress(
            task_id=self._task_id, done=self._done, per_second=self._cores / self._event_seconds,
            event_seconds=self._event_seconds, cores=self._cores, cores_busy=float(self._cores),
            waiting=self._waiting, backlog_s=backlog_s, idle=not self._left,
        )  # fmt: skip
        pack = PackStatus(
            pack_id=self._pack.pack_id, state="running", cores=self._cores, cores_busy=float(self._cores),
            occupancy=(1.0,) * self._cores, tasks=(task,), idle=not self._left,
        )  # fmt: skip
        status = AllocationStatus(
            allocation_id=self._allocation_id, state="running", head_pid=os.getpid(), host="n0", written=now,
            inbox_read=self._inbox_read, packs=(pack,),
        )  # fmt: skip
        write_message(self._folder.status, STATUS, status, durable=False)


def heads(programs: Path, spool: Spool, count: int) -> None:
    """Be the heads of the first jobs, until killed; each looks and speaks once a second."""
    names = [line.split()[1] for line in (programs / "jobs").read_text().splitlines()]
    folders = [spool.allocation(name) for name in names[:count]]
    running = [Head(spool, folder, read_message(folder.plan, PLAN)) for folder in folders]
    while True:
        began = time.monotonic()
        for number, head in enumerate(running):
            head.step()
            time.sleep(max(0.0, began + (number + 1) / len(running) - time.monotonic()))


if __name__ == "__main__":
    heads(Path(sys.argv[1]), Spool(Path(sys.argv[2])), int(sys.argv[3]))
