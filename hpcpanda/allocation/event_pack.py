"""The MPI program of an event pack: one rank a node, each a node agent; rank 0 is also the coordinator.

Started by the head as ``LAUNCHER python -m hpcpanda.allocation.event_pack PACK_RUN_FILE``. The head's
messages come to rank 0 as JSON lines on stdin, its answers go as JSON lines to the original stdout;
what anything else prints goes to stderr. When stdin ends, the head is gone, and so is the pack.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from hpcpanda.allocation.agent import Agent, node_log_path
from hpcpanda.allocation.board import Board
from hpcpanda.allocation.coordinator import Coordinator, Send
from hpcpanda.allocation.forkserver import ForkServer, ForkServerSettings, die_with_parent
from hpcpanda.allocation.node_work import NodeWork
from hpcpanda.allocation.pack_run import PACK_RUN, PackRun
from hpcpanda.allocation.plan import Drain, EventPack, PackStatus, Revoke, TopUp
from hpcpanda.allocation.ranks import MpiRanks, OneRank, Ranks
from hpcpanda.allocation.spool import AllocationFolder, Spool, journal_name, read_message
from hpcpanda.allocation.work_folder import make_work_folder
from hpcpanda.allocation.worker_log import LogPipe, NodeLog
from hpcpanda.events.journal import JournalHeader
from hpcpanda.events.recorder import Recorder

STATUS: Final[TypeAdapter[PackStatus]] = TypeAdapter(PackStatus)
FROM_HEAD: Final[TypeAdapter[TopUp | Revoke | Drain]] = TypeAdapter(TopUp | Revoke | Drain)

_STATUS_S: Final = 1.0
_NAP_S: Final = (0.002, 0.02, 0.05)
"""Times between two looks at MPI: a tenth of the silence so far; at least the first when the node waits for work or has
just begun, else at least the second, since a node asks long before its work runs out; at most the third."""

_BEGIN_S: Final = 2.0


class HeadLine:
    """Rank 0's connection to the head."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._partial = b""
        os.set_blocking(0, False)

    def read(self) -> list[TopUp | Revoke | Drain] | None:
        """Messages that have arrived; None when the head is gone."""
        try:
            got = os.read(0, 1 << 20)
        except BlockingIOError:
            return []
        if not got:
            return None
        *lines, self._partial = (self._partial + got).split(b"\n")
        return [FROM_HEAD.validate_json(line) for line in lines]

    def tell(self, status: PackStatus) -> None:
        """Report to the head."""
        os.write(self._reports, STATUS.dump_json(status) + b"\n")


class PackRank:
    """One rank's loop."""

    def __init__(self, run: PackRun, pack: EventPack, reports: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._run = run
        cores = run.site.nodes.cores
        board = Board(cores)
        server, server_log = _start_fork_server(run, pack, board)  # before MPI is initialised
        work = NodeWork(
            slots=cores,
            cores_in_pack=cores * pack.nodes,
            policy=pack.spec.ranges,
            prior=pack.event_seconds or pack.spec.resources.event_seconds,
            deadline=time.monotonic() + run.deadline - time.time(),
        )
        self._ranks: Ranks = OneRank() if pack.nodes == 1 else MpiRanks()
        rank = self._ranks.rank
        self._agent = Agent(
            spec=pack.spec,
            work=work,
            recorder=_open_recorder(run, pack, rank),
            server=server,
            server_log=server_log,
            board=board,
            log=NodeLog(node_log_path(_folder(run).logs, pack.pack_id, rank)),
            send=self._ranks.to_coordinator,
            selector=self._selector,
        )
        self._coordinator: Coordinator | None = None
        self._line: HeadLine | None = None
        self._told = 0.0
        self._was_idle = False
        if rank == 0:
            self._coordinator = Coordinator(
                pack, incarnation=run.incarnation, cores=cores, now=time.monotonic()
            )
            self._line = HeadLine(reports)
            self._selector.register(0, selectors.EVENT_READ, self._on_head)
        self._wake_on_signals()

    def loop(self) -> None:
        """Run until the pack has ended."""
        began = heard = time.monotonic()
        while not self._ended:
            timeout = self._agent.tick() if not self._agent.ended else 0.5
            if self._ranks.size > 1:
                now = time.monotonic()
                urgent, calm, longest = _NAP_S
                shortest = urgent if self._agent.hungry or now - began < _BEGIN_S else calm
                timeout = min(timeout, longest, max(shortest, (now - heard) / 10))
            for key, _ in self._selector.select(timeout):
                if self._selector.get_map().get(key.fd) is key:  # not closed by an earlier one of these
                    key.data()
            while self._exchange():
                heard = time.monotonic()
            self._tell(force=False)
        self._tell(force=True)
        self._ranks.close()

    @property
    def _ended(self) -> bool:
        return self._coordinator.ended if self._coordinator is not None else self._agent.ended

    def _exchange(self) -> bool:
        """Deliver messages; whether there were any."""
        for_agent = self._ranks.for_agent()
        for message in for_agent:
            if not self._agent.ended:
                self._agent.receive(message)
        if self._coordinator is None:
            return bool(for_agent)
        for_coordinator = self._ranks.for_coordinator()
        for rank, said in for_coordinator:
            self._deliver(self._coordinator.from_agent(rank, said))
        return bool(for_agent or for_coordinator)

    def _deliver(self, sends: list[Send]) -> None:
        for send in sends:
            self._ranks.to_agent(send.rank, send.message)

    def _on_head(self) -> None:
        assert self._coordinator is not None
        assert self._line is not None
        messages = self._line.read()
        if messages is None:
            self._selector.unregister(0)
            messages = [Drain(grace_s=1.0)]
        for message in messages:
            self._deliver(self._coordinator.from_head(message))
            self._told = 0.0

    def _tell(self, *, force: bool) -> None:
        """Report to the head once a second, and at once when the work runs out."""
        if self._coordinator is None or self._line is None:
            return
        now = time.monotonic()
        idle = self._coordinator.idle
        if force or now - self._told >= _STATUS_S or idle > self._was_idle:
            self._told = now
            try:
                self._line.tell(self._coordinator.status(now))
            except BrokenPipeError:
                self._deliver(self._coordinator.from_head(Drain(grace_s=1.0)))
        self._was_idle = idle

    def _wake_on_signals(self) -> None:
        """A batch system that signals the ranks itself makes them finish as the head's word would."""
        wake, wake_end = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        grace = self._run.site.allocation.grace_s

        def on_signal() -> None:
            if signal.SIGTERM in os.read(wake, 64) and not self._agent.ended:
                self._agent.finish(grace)

        self._selector.register(wake, selectors.EVENT_READ, on_signal)


def _folder(run: PackRun) -> AllocationFolder:
    return Spool(Path(run.spool)).allocation(run.allocation_id)


def _start_fork_server(run: PackRun, pack: EventPack, board: Board) -> tuple[ForkServer, LogPipe]:
    """Fork it. Which rank this is cannot be known before MPI is initialised, so all share a log of set-ups."""
    log = LogPipe(NodeLog(_folder(run).logs / f"{pack.pack_id}-setup.log"))
    settings = ForkServerSettings(
        spec=pack.spec,
        work_folder=make_work_folder(run.allocation_id),
        pins=_pins(run),
        log=log.write_end,
    )
    server = ForkServer(settings, board)
    os.close(log.write_end)
    return server, log


def _open_recorder(run: PackRun, pack: EventPack, rank: int) -> Recorder:
    name = journal_name(run.allocation_id, pack.pack_id, run.incarnation, rank)
    header = JournalHeader(
        task_id=pack.task_id,
        allocation_id=run.allocation_id,
        pack_id=pack.pack_id,
        incarnation=run.incarnation,
        rank=rank,
        host=socket.gethostname(),
        cores=run.site.nodes.cores,
        started=time.time(),
    )
    return Recorder(
        Spool(Path(run.spool)).events(pack.task_id) / name,
        header,
        roll_bytes=run.site.limits.open_segment_mb << 20,
        sync_s=run.site.allocation.sync_s,
        on_durable=lambda _: None,
    )


def _pins(run: PackRun) -> tuple[int, ...]:
    """The processor of each worker slot; none where nodes are only pretended or cores do not suffice."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = run.site.nodes.cores
    if run.site.nodes.oversubscribe or len(allowed) < cores:
        return ()
    return tuple(allowed[:cores])


def main() -> None:
    """Entry point of each rank."""
    die_with_parent()
    reports = os.dup(1)
    os.set_inheritable(reports, False)  # noqa: FBT003 - the system call's own signature
    os.dup2(2, 1)
    run = read_message(Path(sys.argv[1]), PACK_RUN)
    assert isinstance(run.pack, EventPack)
    PackRank(run, run.pack, reports).loop()


if __name__ == "__main__":
    main()
