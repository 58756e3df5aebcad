"""A stand-in for an allocation: ``python edge_allocation.py FOLDER SPOOL``.

It keeps the contract of the spool (plan, inbox, status, journals) without MPI or payloads. The payload's settings
say how it behaves: ``event_s``, ``chunk``, ``die_after`` (events, then SIGKILL to itself, in the first allocation
only), ``fault`` (set-up error), ``bad_event`` (set aside).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpcpanda.allocation.plan import (
    AddWork,
    AllocationStatus,
    Drain,
    EndWork,
    InboxMessage,
    MergedFile,
    MergePack,
    Pack,
    PackStatus,
    Revoke,
    StartPack,
    TaskProgress,
    TaskWork,
    TopUp,
)
from hpcpanda.allocation.spool import MESSAGE, PLAN, STATUS, Spool, journal_name, read_message, write_message
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.journal import ENTRY, FailedInEpoch, JournalHeader
from hpcpanda.events.recorder import Recorder

LINGER_S = 0.6


Part = tuple[str, int]
"""Pack and task."""


class FakeAllocation:
    def __init__(self, folder: Path, spool: Path) -> None:
        self.spool = Spool(spool)
        self.folder = self.spool.allocation(folder.name)
        self.plan = read_message(self.folder.plan, PLAN)
        self.read = 0
        self.draining = False
        self.waiting = list(self.plan.packs)
        self.pending: dict[Part, dict[int, IntervalSet]] = {}
        self.work: dict[Part, TaskWork] = {}
        self.recorders: dict[Part, Recorder] = {}
        self.progress: dict[Part, TaskProgress] = {}
        self.packs: dict[str, PackStatus] = {}
        self.written = 0.0
        self.stopped = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))

    def run(self) -> None:
        quiet = time.monotonic()
        while time.monotonic() - quiet < LINGER_S and not self.draining and not self.stopped:
            self.inbox()
            while self.waiting:
                self.start(self.waiting.pop(0))
            worked = [self.work_on(part) for part in list(self.recorders)]
            if any(worked):
                quiet = time.monotonic()
            else:
                time.sleep(0.02)
            if time.monotonic() - self.written > 0.2:
                self.tell("running")
        for pack_id in list(self.packs):
            self.end_pack(pack_id)
        self.tell("ended")

    def inbox(self) -> None:
        while True:
            try:
                message = read_message(self.folder.message(self.read + 1), MESSAGE)
            except FileNotFoundError:
                return
            self.read += 1
            self.act(message)

    def act(self, message: InboxMessage) -> None:
        match message:
            case TopUp():
                held = self.pending.get((message.pack_id, message.task_id), {})
                for part in message.events:
                    held[part.epoch] = held.get(part.epoch, EMPTY) | part.events
            case AddWork():
                self.begin(message.pack_id, message.work)
            case StartPack():
                self.waiting.append(message.pack)
            case Revoke():
                for epoch in message.epochs:
                    self.pending.get((message.pack_id, message.task_id), {}).pop(epoch, None)
            case EndWork():
                self.end((message.pack_id, message.task_id))
            case Drain(pack_id=None):
                self.draining = True
            case Drain(pack_id=pack_id):
                self.end_pack(str(pack_id))

    def start(self, pack: Pack) -> None:
        self.packs[pack.pack_id] = PackStatus(pack_id=pack.pack_id, state="running", cores=2)
        if isinstance(pack, MergePack):
            self.merge(pack)
            return
        for work in pack.work:
            self.begin(pack.pack_id, work)

    def begin(self, pack_id: str, work: TaskWork) -> None:
        part = pack_id, work.task_id
        settings = work.spec.payload.settings
        if "fault" in settings:
            self.say(part, "failed", error=str(settings["fault"]))
            return
        self.work[part] = work
        self.pending[part] = {leased.epoch: leased.events for leased in work.events}
        name = journal_name(self.plan.allocation_id, pack_id, 0, 0)
        header = JournalHeader(
            task_id=work.task_id, allocation_id=self.plan.allocation_id, pack_id=pack_id, incarnation=0,
            rank=0, host="here", cores=1, started=time.time(),
        )  # fmt: skip
        self.recorders[part] = Recorder(
            self.spool.events(work.task_id) / name,
            header,
            roll_bytes=2**20,
            sync_s=0.02,
            on_durable=lambda _: None,
        )
        self.say(part, "running")

    def work_on(self, part: Part) -> bool:
        work, pending = self.work[part], self.pending[part]
        epoch = next((e for e, events in pending.items() if events), None)
        if epoch is None:
            return False
        settings = work.spec.payload.settings
        taken, pending[epoch] = pending[epoch].take(int(settings.get("chunk", 5)))
        bad = settings.get("bad_event")
        if isinstance(bad, int) and bad in taken:
            taken = taken.remove(bad, bad + 1)
            failed = FailedEvent(event=bad, error="bad", attempts=3)
            self.recorders[part].set_aside(FailedInEpoch(epoch=epoch, events=(failed,)))
        time.sleep(len(taken) * float(settings.get("event_s", 0.001)))
        entries = np.zeros(taken.fragments, dtype=ENTRY)
        for row, span in zip(entries, taken.ranges(), strict=True):
            row["epoch"], row["first"], row["last"], row["length"], row["wall_s"] = (
                epoch,
                span.first,
                span.last,
                1,
                0.5,
            )
        if len(entries):
            entries["offset"] = np.arange(len(entries))
            self.recorders[part].record(entries, [b"x" * len(entries)])
        done = self.progress[part].done + len(taken)
        self.say(part, "running", done=done)
        if done >= int(settings.get("die_after", 10**9)) and self.first_to_die():
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def first_to_die(self) -> bool:
        try:
            (self.spool.path / "died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def merge(self, pack: MergePack) -> None:
        status = self.packs[pack.pack_id]
        if "bad_merge" in pack.spec.payload.settings:
            error = str(pack.spec.payload.settings["bad_merge"])
            self.packs[pack.pack_id] = replace(status, state="ended", error=error)
            return
        events = EMPTY
        for part in pack.accepted:
            assert not events & part.events, "an event is accepted from two journals"
            events |= part.events
        most, files = pack.spec.output.max_events or len(events), []
        while events and (pack.rest or len(events) >= most):
            part, events = events.take(most)
            output = Path(pack.output).with_name(pack.spec.output.file_from(part.bounds[0]))
            output.write_text(str(part.bounds))
            Path(f"{output}.json").write_text("{}")
            made = {"path": str(output), "manifest": f"{output}.json", "digest": "sha256:0", "size": 1}
            files.append(MergedFile(events=part, **made))
        self.packs[pack.pack_id] = replace(status, state="ended", files=tuple(files))
        self.tell("running")

    def end(self, part: Part) -> None:
        if part in self.recorders:
            self.recorders.pop(part).close()
            self.say(part, "ended", done=self.progress[part].done)

    def end_pack(self, pack_id: str) -> None:
        for part in [p for p in self.recorders if p[0] == pack_id]:
            self.end(part)
        if self.packs[pack_id].state != "ended":
            self.packs[pack_id] = replace(self.packs[pack_id], state="ended")
            self.tell("running")

    def say(self, part: Part, state: str, *, done: int = 0, error: str | None = None) -> None:
        left = sum(map(len, self.pending.get(part, {}).values()))
        self.progress[part] = TaskProgress(
            task_id=part[1], state=state, cores=2, cores_busy=1.0, done=done,
            waiting=left, backlog_s=left * 0.001, event_seconds=0.01, idle=not left, error=error,
        )  # fmt: skip
        mine = tuple(said for (pack_id, _), said in self.progress.items() if pack_id == part[0])
        self.packs[part[0]] = replace(self.packs[part[0]], tasks=mine, idle=all(t.idle for t in mine))
        if state != "running":
            self.tell("running")

    def tell(self, state: str) -> None:
        self.written = time.monotonic()
        status = AllocationStatus(
            allocation_id=self.plan.allocation_id, state=state, head_pid=os.getpid(), host="here",
            written=time.time(), inbox_read=self.read, packs=tuple(self.packs.values()),
        )  # fmt: skip
        write_message(self.folder.status, STATUS, status, durable=False)


if __name__ == "__main__":
    os.setsid()
    FakeAllocation(Path(sys.argv[1]), Path(sys.argv[2])).run()
