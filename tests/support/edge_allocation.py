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
from pathlib import Path

import numpy as np

from hpcpanda.allocation.plan import (
    AllocationStatus,
    Drain,
    EventPack,
    MergePack,
    PackStatus,
    Revoke,
    StartPack,
    TopUp,
)
from hpcpanda.allocation.spool import MESSAGE, PLAN, STATUS, Spool, journal_name, read_message, write_message
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.journal import ENTRY, FailedInEpoch, JournalHeader
from hpcpanda.events.recorder import Recorder

LINGER_S = 0.6


class FakeAllocation:
    def __init__(self, folder: Path, spool: Path) -> None:
        self.spool = Spool(spool)
        self.folder = self.spool.allocation(folder.name)
        self.plan = read_message(self.folder.plan, PLAN)
        self.read = 0
        self.draining = False
        self.waiting = list(self.plan.packs)
        self.pending: dict[str, dict[int, IntervalSet]] = {}
        self.packs: dict[str, EventPack] = {}
        self.recorders: dict[str, Recorder] = {}
        self.statuses: dict[str, PackStatus] = {}
        self.written = 0.0
        self.stopped = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))

    def run(self) -> None:
        quiet = time.monotonic()
        while time.monotonic() - quiet < LINGER_S and not self.draining and not self.stopped:
            self.inbox()
            while self.waiting:
                self.start(self.waiting.pop(0))
            worked = [self.work(pack_id) for pack_id in list(self.recorders)]
            if any(worked):
                quiet = time.monotonic()
            else:
                time.sleep(0.02)
            if time.monotonic() - self.written > 0.2:
                self.tell("running")
        for pack_id in list(self.recorders):
            self.end(pack_id)
        self.tell("ended")

    def inbox(self) -> None:
        while True:
            try:
                message = read_message(self.folder.message(self.read + 1), MESSAGE)
            except FileNotFoundError:
                return
            self.read += 1
            match message:
                case TopUp():
                    for part in message.events:
                        held = self.pending.setdefault(message.pack_id, {})
                        held[part.epoch] = held.get(part.epoch, EMPTY) | part.events
                case StartPack():
                    self.waiting.append(message.pack)
                case Revoke():
                    for epoch in message.epochs:
                        self.pending.get(message.pack_id, {}).pop(epoch, None)
                case Drain(pack_id=None):
                    self.draining = True
                case Drain(pack_id=pack_id):
                    self.end(str(pack_id))

    def start(self, pack: EventPack | MergePack) -> None:
        if isinstance(pack, MergePack):
            self.merge(pack)
            return
        settings = pack.spec.payload.settings
        if "fault" in settings:
            self.say(pack, "failed", error=str(settings["fault"]))
            return
        self.packs[pack.pack_id] = pack
        self.pending[pack.pack_id] = {part.epoch: part.events for part in pack.events}
        name = journal_name(self.plan.allocation_id, pack.pack_id, 0, 0)
        header = JournalHeader(
            task_id=pack.task_id, allocation_id=self.plan.allocation_id, pack_id=pack.pack_id, incarnation=0,
            rank=0, host="here", cores=1, started=time.time(),
        )  # fmt: skip
        self.recorders[pack.pack_id] = Recorder(
            self.spool.events(pack.task_id) / name,
            header,
            roll_bytes=2**20,
            sync_s=0.02,
            on_durable=lambda _: None,
        )
        self.say(pack, "running")

    def work(self, pack_id: str) -> bool:
        pack, pending = self.packs[pack_id], self.pending[pack_id]
        epoch = next((e for e, events in pending.items() if events), None)
        if epoch is None:
            return False
        settings = pack.spec.payload.settings
        taken, pending[epoch] = pending[epoch].take(int(settings.get("chunk", 5)))
        bad = settings.get("bad_event")
        if isinstance(bad, int) and bad in taken:
            taken = taken.remove(bad, bad + 1)
            failed = FailedEvent(event=bad, error="bad", attempts=3)
            self.recorders[pack_id].set_aside(FailedInEpoch(epoch=epoch, events=(failed,)))
        time.sleep(len(taken) * float(settings.get("event_s", 0.001)))
        entries = np.zeros(taken.fragments, dtype=ENTRY)
        for row, part in zip(entries, taken.ranges(), strict=True):
            row["epoch"], row["first"], row["last"], row["length"], row["wall_s"] = (
                epoch,
                part.first,
                part.last,
                1,
                0.5,
            )
        if len(entries):
            entries["offset"] = np.arange(len(entries))
            self.recorders[pack_id].record(entries, [b"x" * len(entries)])
        done = self.statuses[pack_id].events_done + len(taken)
        self.say(pack, "running", done=done)
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
        if "bad_merge" in pack.spec.payload.settings:
            self.say(pack, "failed", error=str(pack.spec.payload.settings["bad_merge"]))
            return
        events = EMPTY
        for part in pack.accepted:
            assert not events & part.events, "an event is accepted from two journals"
            events |= part.events
        output = Path(pack.output)
        output.write_text(str(events.bounds))
        result = {"path": str(output), "manifest": f"{output}.json", "digest": "sha256:0", "size": 1}
        self.say(pack, "ended", result=result)

    def end(self, pack_id: str) -> None:
        if pack_id in self.recorders:
            self.recorders.pop(pack_id).close()
            self.say(self.packs[pack_id], "ended", done=self.statuses[pack_id].events_done)

    def say(
        self,
        pack: EventPack | MergePack,
        state: str,
        *,
        done: int = 0,
        error: str | None = None,
        result: dict[str, str | int] | None = None,
    ) -> None:
        left = sum(map(len, self.pending.get(pack.pack_id, {}).values()))
        self.statuses[pack.pack_id] = PackStatus(
            pack_id=pack.pack_id, task_id=pack.task_id, state=state, cores=2, cores_busy=1.0, events_done=done,
            backlog_s=left * 0.001, event_seconds=0.01, error=error, result=result or {},
        )  # fmt: skip
        if state != "running":
            self.tell("running")

    def tell(self, state: str) -> None:
        self.written = time.monotonic()
        status = AllocationStatus(
            allocation_id=self.plan.allocation_id, state=state, head_pid=os.getpid(), host="here",
            written=time.time(), inbox_read=self.read, packs=tuple(self.statuses.values()),
        )  # fmt: skip
        write_message(self.folder.status, STATUS, status, durable=False)


if __name__ == "__main__":
    os.setsid()
    FakeAllocation(Path(sys.argv[1]), Path(sys.argv[2])).run()
