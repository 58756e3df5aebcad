"""A real head over a spool folder of its own, a view of its processes, and a check of what its journals hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hpcpanda.allocation.plan import (
    AllocationPlan,
    AllocationStatus,
    InboxMessage,
    LeasedEvents,
    Pack,
    PackStatus,
    TaskProgress,
    TaskWork,
    WorkPack,
)
from hpcpanda.allocation.spool import (
    MESSAGE,
    PLAN,
    STATUS,
    AllocationFolder,
    Spool,
    read_message,
    write_message,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.site import AllocationSettings, LauncherSettings, NodeSettings, PackVia, Site
from hpcpanda.domain.task import LossPolicy, RangePolicy, Resources, TaskSpec
from hpcpanda.events.journal import read_journal, segment_path
from tests.support.processes import living

HERE = Path(__file__).parent
MARK = "HPCPANDA_TEST_ALLOCATION"
NAMED = {
    "hp-nursery": "nursery",
    "hp-fork-server": "fork server",
    "hp-worker": "worker",
    "hp-job-keeper": "job keeper",
    "hp-job-runner": "job runner",
}
"""Roles of the processes of a pack that name themselves."""


def leased(*parts: tuple[int, int, int]) -> tuple[LeasedEvents, ...]:
    """Leased events from ``(epoch, first, last)``."""
    return tuple(LeasedEvents(epoch=e, events=IntervalSet.span(a, b)) for e, a, b in parts)


def event_spec(
    *,
    call: str = "run",
    setup: str | None = None,
    settings: dict[str, Any] | None = None,
    target_seconds: float = 0.1,
    max_events: int | None = None,
    attempts: int = 3,
    event_seconds: float | None = None,
    **limits: Any,
) -> TaskSpec:
    """A task of functions of ``allocation_payload``."""
    return TaskSpec(
        name="test",
        events=10**9,
        payload=CallablePayload(
            call=call if ":" in call else f"allocation_payload:{call}",
            setup=f"allocation_payload:{setup}" if setup else None,
            python_path=(str(HERE),),
            settings=settings or {},
        ),
        output=Output(file="out.bin", format=OutputFormat.CONCAT),
        ranges=RangePolicy(target_seconds=target_seconds, max_events=max_events),
        loss=LossPolicy(attempts=attempts),
        resources=Resources(event_seconds=event_seconds, **limits),
    )


def event_pack(
    *parts: tuple[int, int, int], nodes: int = 1, pack_id: str = "p", task_id: int = 1, **spec: Any
) -> WorkPack:
    """A pack over ``(epoch, first, last)`` parts of one task."""
    work = TaskWork(task_id=task_id, spec=event_spec(**spec), events=leased(*parts))
    return WorkPack(pack_id=pack_id, nodes=nodes, work=(work,))


@dataclass(slots=True)
class Rig:
    """One allocation; its processes are known by an environment variable that they inherit."""

    folder: Path
    nodes: int = 1
    cores: int = 2
    memory_mb: int = 4000
    walltime_s: float = 60.0
    margin_s: float = 1.0
    grace_s: float = 2.0
    linger_s: float = 0.2
    via: PackVia = PackVia.DIRECT
    spool_path: Path | None = None
    head: subprocess.Popen[bytes] | None = None
    sent: int = 0
    heads: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def spool(self) -> Spool:
        """The spool folder."""
        return Spool(self.spool_path or self.folder / "spool")

    @property
    def allocation(self) -> AllocationFolder:
        """The allocation's folder."""
        return self.spool.allocation("a")

    @property
    def temporary(self) -> Path:
        """TMPDIR of all processes."""
        return self.folder / "tmp"

    def start(self, *packs: Pack) -> None:
        """Start the head; with packs, write the plan before."""
        self.temporary.mkdir(exist_ok=True)
        if packs:
            self.allocation.create()
            write_message(self.allocation.plan, PLAN, self._plan(packs))
        with (self.folder / "head.log").open("ab") as log:
            self.head = subprocess.Popen(
                [sys.executable, "-m", "hpcpanda.allocation.head", "a", str(self.spool.path)],
                env=os.environ | {MARK: str(self.folder), "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.heads.append(self.head)

    def _plan(self, packs: tuple[Pack, ...]) -> AllocationPlan:
        site = Site(
            name="t",
            spool=str(self.spool.path),
            nodes=NodeSettings(
                count=self.nodes,
                cores=self.cores,
                memory_mb=self.memory_mb,
                oversubscribe=self.nodes > 1 or self.via is PackVia.PARSL,
            ),
            launcher=LauncherSettings(packs=self.via),
            allocation=AllocationSettings(
                linger_s=self.linger_s,
                walltime_s=self.walltime_s,
                margin_s=self.margin_s,
                grace_s=self.grace_s,
                sync_s=0.05,
            ),
        )
        return AllocationPlan(
            allocation_id="a", site=site, nodes=self.nodes, walltime_s=self.walltime_s, packs=packs
        )

    def send(self, message: InboxMessage) -> None:
        """Put a message into the inbox."""
        self.sent += 1
        write_message(self.allocation.message(self.sent), MESSAGE, message)

    def wait(self, seconds: float = 40.0) -> int:
        """The head's exit status."""
        assert self.head is not None
        return self.head.wait(seconds)

    def log(self) -> str:
        """What the head has printed."""
        return (self.folder / "head.log").read_text(errors="replace")

    def status(self) -> AllocationStatus:
        """The head's last word."""
        return read_message(self.allocation.status, STATUS)

    def pack(self, pack_id: str = "p") -> PackStatus:
        """A pack's last word."""
        return next(p for p in self.status().packs if p.pack_id == pack_id)

    def task(self, pack_id: str = "p", task_id: int = 1) -> TaskProgress:
        """A pack's last word about a task."""
        return next(t for t in self.pack(pack_id).tasks if t.task_id == task_id)

    def history(self, what: str) -> list[dict[str, Any]]:
        """Lines of the allocation's history of one kind."""
        lines = self.allocation.history.read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["what"] == what]

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
        """Wait for a condition of another process that sends no event."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (FileNotFoundError, StopIteration):
                pass
            ended = self.head.poll() if self.head is not None else None
            assert time.monotonic() < deadline, (
                f"{what} did not happen within {seconds} s; the head's exit status: {ended}\n{self.log()}"
            )
            time.sleep(0.02)

    # ---- processes ----

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """Every living process of this allocation, with its role."""
        mark = str(self.folder)
        return living(lambda p: (_role(p), p) if p.environ().get(MARK) == mark else None)

    def of_role(self, role: str) -> list[psutil.Process]:
        """The processes of one role."""
        return sorted((p for r, p in self.processes() if r == role), key=lambda p: p.pid)

    def kill(self, role: str) -> psutil.Process:
        """SIGKILL the first process of a role, waiting for there to be one."""
        self.until(lambda: bool(self.of_role(role)), f"a process of role {role}")
        victim = self.of_role(role)[0]
        victim.send_signal(signal.SIGKILL)
        return victim

    def gone(self, seconds: float = 5.0) -> list[tuple[str, psutil.Process]]:
        """What is still alive after some time given to go."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    # ---- results ----

    def journals(self, task_id: int = 1) -> list[Path]:
        """All journals of a task."""
        return sorted(self.spool.events(task_id).glob("*.journal"))

    def done(self, task_id: int = 1, *, copies: bool = False, content: bool = True) -> dict[int, IntervalSet]:
        """Journalled events by epoch; each once unless ``copies``, and with the right bytes."""
        by_epoch: dict[int, IntervalSet] = {}
        for path in self.journals(task_id):
            part = read_journal(path)
            within = EMPTY
            for e in part.entries:
                epoch, first, last = int(e["epoch"]), int(e["first"]), int(e["last"])
                data = _slice(segment_path(path, int(e["segment"])), int(e["offset"]), int(e["length"]))
                assert zlib.crc32(data) == int(e["crc"])
                assert not content or data == np.arange(first, last, dtype="<u8").tobytes()
                known = by_epoch.get(epoch, EMPTY)
                assert not (within if copies else known).overlaps(first, last), (path.name, first, last)
                within = within.add(first, last)
                by_epoch[epoch] = known.add(first, last)
        return by_epoch

    def failed(self, task_id: int = 1) -> list[FailedEvent]:
        """Events set aside."""
        parts = map(read_journal, self.journals(task_id))
        return [event for part in parts for group in part.failed for event in group.events]


def _slice(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    text = " ".join(words)
    if (named := NAMED.get(process.name())) is not None:
        return named
    if "hpcpanda.allocation.work_pack" in text and "python" in Path(words[0]).name:
        return f"rank {process.environ().get('PMI_RANK', '0')}"
    marks = ("hydra_pmi_proxy", "proxy"), ("mpiexec", "mpiexec"), ("hpcpanda.allocation.head", "head")
    return next((role for mark, role in marks if mark in text), "other")
