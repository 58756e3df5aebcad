"""The head: first process of an allocation. ``python -m hpcpanda.allocation.head ALLOCATION SPOOL``.

It opens the plan, starts packs, passes the edge's messages on, starts dead packs again, writes the
status, and ends when there is nothing left to do. Started again in the same folder (a requeued batch
job), it goes on with whatever the journals do not show as done.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcpanda.allocation.head_rules import CountNodes, Effect, HeadRules, Kill, Launch, Tell
from hpcpanda.allocation.launch import DirectLauncher, PackLauncher, RunningPack, start_beside_head
from hpcpanda.allocation.nodes_left import NodeCount, question
from hpcpanda.allocation.pack_line import FROM_HEAD, STATUS
from hpcpanda.allocation.pack_run import PACK_RUN, PackRun
from hpcpanda.allocation.plan import AllocationPlan, AllocationStatus, MergePack, MpiJobPack, Pack, PackStatus
from hpcpanda.allocation.recovery import last_incarnation, work_left
from hpcpanda.allocation.signals import wake_on
from hpcpanda.allocation.spool import MESSAGE, PLAN, Spool, read_message, write_message
from hpcpanda.allocation.spool import STATUS as ALLOCATION_STATUS
from hpcpanda.domain.errors import HpcPandaError, SchedulerFailed
from hpcpanda.domain.site import PackVia

_INBOX_S: Final = 0.25
_STATUS_S: Final = 1.0
_RESERVE_BYTES: Final = 1 << 16
_LAST_WORDS_S: Final = 2.0
"""A line that nobody closes is given up so long after its pack has ended."""
_BEGUN: Final = "allocation-started"
_MODULES: Final = {
    "work": "hpcpanda.allocation.work_pack",
    "mpi-job": "hpcpanda.allocation.mpi_job",
    "merge": "hpcpanda.allocation.merge_pack",
}


class Head:
    """The head's I/O around :class:`~hpcpanda.allocation.head_rules.HeadRules`."""

    def __init__(self, allocation_id: str, spool: Path) -> None:
        self._spool = Spool(spool)
        self._folder = self._spool.allocation(allocation_id)
        self._folder.create()
        self._folder.reserve.write_bytes(bytes(_RESERVE_BYTES))
        self._plan = read_message(self._folder.plan, PLAN)
        self._launcher: PackLauncher = _launcher(self._plan)
        self._rules = HeadRules(self._plan, time.monotonic())
        self._running: dict[str, RunningPack] = {}
        self._count: NodeCount | None = None
        self._lines: dict[str, bytes] = {}
        self._heard: dict[str, float] = {}
        self._busy_s = self._busy_before()
        self._inbox_read = 0
        self._inbox_at = 0.0
        self._written = 0.0
        self._selector = selectors.DefaultSelector()
        self._wake_on_signals()
        self._life = self._lives_before()
        self._note(_BEGUN, nodes=self._plan.nodes, cores=self._plan.site.nodes.cores)

    def run(self) -> None:
        """Live until the allocation has nothing left to do."""
        while not self._rules.ended:
            now = time.monotonic()
            if now - self._inbox_at >= _INBOX_S:
                self._inbox_at = now
                self._read_inbox()
            self._do(self._rules.tick(time.monotonic()))
            if now - self._written >= _STATUS_S:
                self._write_status("draining" if self._rules.draining else "running")
            for key, _ in self._selector.select(_INBOX_S):
                key.data()
            self._reap()
            if self._count is not None and self._count.over:
                self._counted(self._count)
        if self._count is not None:
            self._count.close()
        self._launcher.close()
        self._note("allocation-ended")
        self._write_status("ended")
        self._folder.reserve.unlink(missing_ok=True)

    # ---- the edge ----

    def _read_inbox(self) -> None:
        while True:
            path = self._folder.message(self._inbox_read + 1)
            try:
                message = read_message(path, MESSAGE)
            except FileNotFoundError:
                return
            except HpcPandaError as problem:
                _say(f"inbox message refused: {problem}")
                self._inbox_read += 1
                continue
            self._inbox_read += 1
            self._do(self._rules.on_message(message, time.monotonic()))

    def _write_status(self, state: str) -> None:
        self._written = time.monotonic()
        status = AllocationStatus(
            allocation_id=self._plan.allocation_id,
            state=state,  # type: ignore[arg-type]
            head_pid=os.getpid(),
            host=socket.gethostname(),
            written=time.time(),
            inbox_read=self._inbox_read,
            packs=tuple(life.status for life in self._rules.packs.values()),
            life=self._life,
            nodes=self._rules.nodes,
            busy_s=self._busy_s,
        )
        for _ in range(2):
            try:
                write_message(self._folder.status, ALLOCATION_STATUS, status, durable=state == "ended")
            except OSError as problem:
                _say(f"the status cannot be written: {problem}")
                self._folder.reserve.unlink(missing_ok=True)
            else:
                break

    def _note(self, what: str, **facts: str | float) -> None:
        """Add a line to the allocation's history."""
        line = json.dumps({"at": time.time(), "what": what} | facts) + "\n"
        try:
            with self._folder.history.open("a") as file:
                file.write(line)
        except OSError as problem:
            _say(f"the history cannot be written: {problem}")

    def _lives_before(self) -> int:
        """How often a head has begun in this folder."""
        try:
            return self._folder.history.read_text(errors="replace").count(f'"{_BEGUN}"')
        except FileNotFoundError:
            return 0

    def _busy_before(self) -> float:
        """Core-seconds of the lives before, from their last status."""
        try:
            return float(read_message(self._folder.status, ALLOCATION_STATUS).busy_s)
        except (OSError, HpcPandaError):
            return 0.0

    # ---- packs ----

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Launch():
                    self._launch(effect)
                case Tell():
                    self._tell(effect)
                case Kill():
                    self._note("pack-killed", pack=effect.pack_id)
                    self._running[effect.pack_id].kill()
                case CountNodes():
                    self._count_nodes()

    def _count_nodes(self) -> None:
        """Ask how many nodes are left; a question that was asked before may be answered too early."""
        if self._count is not None:
            self._count.close()
            self._count = None
        command = question(self._plan.site.scheduler.executor)
        if command is not None:
            with contextlib.suppress(OSError):
                self._count = NodeCount(command)
        if self._count is None:
            self._do(self._rules.on_nodes(None, time.monotonic()))

    def _counted(self, count: NodeCount) -> None:
        self._count = None
        before, left = self._rules.nodes, count.close()
        effects = self._rules.on_nodes(left, time.monotonic())
        if self._rules.nodes != before:
            self._note("nodes-lost", nodes=self._rules.nodes)
        self._do(effects)

    def _launch(self, effect: Launch) -> None:
        pack = effect.pack
        incarnation = last_incarnation(self._folder, pack.pack_id) + 1
        if not isinstance(pack, MergePack):
            for work in pack.work:
                self._spool.events(work.task_id).mkdir(parents=True, exist_ok=True)
            left = work_left(self._spool, self._plan.allocation_id, pack)
            pack = replace(pack, work=left)  # type: ignore[arg-type]  # as many as before
        run = PackRun(
            allocation_id=self._plan.allocation_id,
            spool=str(self._spool.path),
            site=self._plan.site,
            pack=pack,
            incarnation=incarnation,
            deadline=time.time() + effect.seconds,
        )
        run_file = self._folder.packs / f"{pack.pack_id}-i{incarnation}.json"
        try:
            write_message(run_file, PACK_RUN, run)
            started = self._start(pack, run_file)
        except (SchedulerFailed, OSError) as problem:
            self._note("pack-not-started", pack=pack.pack_id, error=str(problem))
            self._do(self._rules.on_exit(pack.pack_id, str(problem), time.monotonic()))
            return
        self._note("pack-started", pack=pack.pack_id, kind=pack.kind, incarnation=incarnation)
        self._running[pack.pack_id] = started
        self._lines[pack.pack_id] = b""
        self._heard[pack.pack_id] = time.monotonic()
        self._selector.register(started.reports, selectors.EVENT_READ, lambda: self._on_reports(pack.pack_id))

    def _start(self, pack: Pack, run_file: Path) -> RunningPack:
        log = self._folder.logs / f"{pack.pack_id}.log"
        module = _MODULES[pack.kind]
        if isinstance(pack, MpiJobPack):
            job = pack.work[0].spec.job_request
            ranks = job.ranks_per_node if job is not None else 1
            return self._launcher.start_mpi_job(
                module, run_file, nodes=pack.nodes, ranks_per_node=ranks, log=log
            )
        if not pack.nodes:
            return start_beside_head(module, run_file, log=log)
        return self._launcher.start(module, run_file, ranks=pack.nodes, log=log)

    def _tell(self, effect: Tell) -> None:
        pack = self._running.get(effect.pack_id)
        if pack is None:
            return
        try:
            pack.tell(FROM_HEAD.dump_json(effect.message) + b"\n")
        except OSError:
            _say(f"pack {effect.pack_id} does not listen any more")

    def _on_reports(self, pack_id: str) -> None:
        pack = self._running[pack_id]
        try:
            got = os.read(pack.reports, 1 << 16)
        except BlockingIOError:
            return
        if not got:
            self._selector.unregister(pack.reports)
            return
        *lines, self._lines[pack_id] = (self._lines[pack_id] + got).split(b"\n")
        for line in lines:
            self._on_line(pack_id, line)

    def _on_line(self, pack_id: str, line: bytes) -> None:
        try:
            status: PackStatus = STATUS.validate_json(line)
        except ValueError:
            if line:  # the launcher's own words
                _say(f"pack {pack_id}: {line[:500].decode(errors='replace')}")
            return
        if status.pack_id != pack_id:
            return
        now = time.monotonic()
        self._busy_s += status.cores_busy * (now - self._heard.get(pack_id, now))
        self._heard[pack_id] = now
        before = self._rules.packs[pack_id].status
        if status.told_to_end and not (before.told_to_end or self._rules.draining):
            self._note("told-to-end", pack=pack_id)
        self._do(self._rules.on_report(status, time.monotonic()))
        if (before.state, before.idle) != (status.state, status.idle):
            self._written = 0.0

    def _reap(self) -> None:
        """Notice packs that have ended, after their last words were read."""
        for pack_id, pack in list(self._running.items()):
            how = pack.exited()
            if how is None:
                continue
            until = time.monotonic() + _LAST_WORDS_S
            while pack.reports in self._selector.get_map() and time.monotonic() < until:
                self._selector.select(_INBOX_S)
                self._on_reports(pack_id)
            if pack.reports in self._selector.get_map():
                self._selector.unregister(pack.reports)
            del self._running[pack_id]
            pack.close()
            self._note("pack-ended", pack=pack_id, how=how)
            self._written = 0.0
            self._do(self._rules.on_exit(pack_id, how, time.monotonic()))

    def _wake_on_signals(self) -> None:
        """SIGTERM drains; SIGCHLD only wakes the loop."""
        wake = wake_on(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)

        def on_signal() -> None:
            if set(os.read(wake, 64)) - {signal.SIGCHLD}:
                self._note("told-to-end")
                self._do(self._rules.drain(self._plan.site.allocation.grace_s, time.monotonic()))

        self._selector.register(wake, selectors.EVENT_READ, on_signal)


def _launcher(plan: AllocationPlan) -> PackLauncher:
    """The launcher that the site file names; Parsl takes a second to import, so only when wanted."""
    if plan.site.launcher.packs is PackVia.DIRECT:
        return DirectLauncher(plan.site.launcher)
    from hpcpanda.allocation.launch_parsl import ParslLauncher

    return ParslLauncher(plan)


def _say(text: str) -> None:
    sys.stderr.write(f"head: {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Entry point."""
    with contextlib.suppress(PermissionError):  # it may lead a session already
        os.setsid()
    Head(sys.argv[1], Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
