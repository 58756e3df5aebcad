"""The job side of a pack with real keepers, recorders and processes; only the event side is played."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcpanda.allocation.job_agent import JobAgent
from hpcpanda.allocation.job_hand_out import JobSend
from hpcpanda.allocation.job_keeper import JobKeeper
from hpcpanda.allocation.job_placement import JobPlacement
from hpcpanda.allocation.job_queue import JobQueue
from hpcpanda.allocation.plan import TaskProgress
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.room import Room
from hpcpanda.events.bundle import LEAD_BYTES, BundleHead, head_length, read_head
from hpcpanda.events.columns import BYTES
from hpcpanda.events.journal import (
    JournalHeader,
    JournalPart,
    core_seconds,
    events_of,
    read_journal,
    segment_path,
)
from hpcpanda.events.recorder import Recorder
from tests.support.job_keeper import job_site
from tests.support.job_world import job_work

CORES = 4


class Events:
    """Ranges that leave a slot when told to; at once unless they are kept."""

    def __init__(self) -> None:
        self.agent: JobAgent | None = None
        self.slots = set(range(CORES))
        self.leaving: set[int] = set()
        self.linger = False

    def reserve(self, slots: frozenset[int]) -> None:
        assert slots <= self.slots
        self.slots -= slots
        self.leaving |= slots
        if not self.linger:
            self.leave()

    def leave(self) -> None:
        assert self.agent is not None
        slots, self.leaving = self.leaving, set()
        self.agent.slots_free(slots)

    def unreserve(self, slots: frozenset[int]) -> None:
        assert not slots & (self.slots | self.leaving)
        self.slots |= slots


class Pack:
    """Queue and agents in one process, with a plain queue for MPI."""

    def __init__(self, folder: Path, ranks: int, seconds: float, unfit: str | None = None) -> None:
        self.folder = folder
        deadline = time.monotonic() + seconds
        self.queue = JobQueue(
            ranks=ranks,
            node=Room(cores=CORES, memory_mb=2000, seconds=seconds),
            deadline=deadline,
        )
        self.keepers = [self._keeper(rank) for rank in range(ranks)]  # before any thread
        self.selector = selectors.DefaultSelector()
        self.said: deque[tuple[int, Any]] = deque()
        self.events = [Events() for _ in range(ranks)]
        self.agents = [self._agent(rank, deadline, None if rank else unfit) for rank in range(ranks)]

    def _keeper(self, rank: int) -> JobKeeper:
        scratch = self.folder / f"scratch-{rank}"
        scratch.mkdir()
        with (self.folder / "keeper.log").open("ab") as log:
            return JobKeeper(scratch=scratch, site=job_site(cores=CORES), log=log.fileno())

    def _agent(self, rank: int, deadline: float, unfit: str | None) -> JobAgent:
        agent = JobAgent(
            keeper=self.keepers[rank],
            placement=JobPlacement(slots=CORES, memory_mb=2000, gpus=0, deadline=deadline),
            processors=(),
            slots=CORES,
            events=self.events[rank],
            open_recorder=lambda task_id: self._recorder(task_id, rank),
            send=lambda message: self.said.append((rank, message)),
            selector=self.selector,
            unfit=unfit,
        )
        self.events[rank].agent = agent
        return agent

    def journal(self, task_id: int, rank: int) -> Path:
        return self.folder / f"t{task_id}-r{rank}.journal"

    def _recorder(self, task_id: int, rank: int) -> Recorder:
        header = JournalHeader(
            task_id=task_id,
            allocation_id="a",
            pack_id="p",
            incarnation=0,
            rank=rank,
            host="here",
            cores=CORES,
            started=time.time(),
        )
        path = self.journal(task_id, rank)
        return Recorder(path, header, roll_bytes=1 << 24, sync_s=0.05, on_durable=lambda _: None)

    def deliver(self, sends: list[JobSend]) -> None:
        for send in sends:
            if not self.agents[send.rank].ended:
                self.agents[send.rank].receive(send.message)

    def run(self, until: Callable[[], object], *, seconds: float = 30.0) -> None:
        """The loop of all ranks until something is so."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, (self.folder / "keeper.log").read_text()
            timeout = min(agent.tick() for agent in self.agents)
            self._talk()
            if until():
                return
            for key, _ in self.selector.select(min(timeout, 0.2)):
                key.data()
            self._talk()

    def _talk(self) -> None:
        while self.said:
            rank, message = self.said.popleft()
            self.deliver(self.queue.from_agent(rank, message, time.monotonic()))

    def add(self, task_id: int, request: JobRequest | None = None, **words: Any) -> None:
        self.deliver(self.queue.add(job_work(task_id, request, **words), time.monotonic()))

    def progress(self, task_id: int) -> TaskProgress:
        return next(p for p in self.queue.progress(time.monotonic()) if p.task_id == task_id)

    def finish(self, grace_s: float = 5.0) -> None:
        self.deliver(self.queue.drain(grace_s))
        self.run(lambda: self.queue.ended)

    def journals(self, task_id: int) -> list[tuple[Path, JournalPart]]:
        paths = [self.journal(task_id, rank) for rank in range(len(self.agents))]
        return [(p, read_journal(p)) for p in paths if p.exists()]


@contextmanager
def pack(folder: Path, *, ranks: int = 1, seconds: float = 600.0, unfit: str | None = None) -> Iterator[Pack]:
    """A pack whose keepers are closed in any case. ``unfit``: why no job may run on the first node."""
    rig = Pack(folder, ranks, seconds, unfit)
    try:
        yield rig
    finally:
        for keeper in rig.keepers:
            keeper.close()


def bundles(journals: list[tuple[Path, JournalPart]]) -> dict[int, tuple[BundleHead, bytes]]:
    """Head and files of each job, checked against the journal."""
    found: dict[int, tuple[BundleHead, bytes]] = {}
    for path, part in journals:
        assert part.schema == BYTES
        for entry in part.entries:
            data = segment_path(path, int(entry["segment"])).read_bytes()
            data = data[int(entry["offset"]) : int(entry["offset"] + entry["length"])]
            length = head_length(data[:LEAD_BYTES])
            head = read_head(data[LEAD_BYTES : LEAD_BYTES + length])
            assert head.report.job == entry["first"] == entry["last"] - 1
            assert head.report.job not in found
            found[head.report.job] = (head, data[LEAD_BYTES + length :])
    return found


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def test_jobs_are_run_and_recorded_beside_events(tmp_path: Path) -> None:
    """Small and large outputs, two tasks, one node whose slots come and go; core-seconds are wall times cores."""
    with pack(tmp_path) as rig:
        script = 'echo "job $0" > a.txt; head -c 3000000 /dev/zero > big.bin; : > empty'
        rig.add(1, jobs=5, command=(*shell(script), "{job}"), outputs=("a.txt", "big.bin", "empty"))
        two = JobRequest(cores=2, memory_mb=100, walltime_s=30.0)
        rig.add(2, two, jobs=3, command=shell("sleep 0.2"))
        rig.run(lambda: rig.queue.idle)
        rig.run(lambda: rig.events[0].slots == set(range(CORES)))
        rig.finish()
        found = bundles(rig.journals(1))
        assert sorted(found) == [0, 1, 2, 3, 4]
        head, data = found[3]
        assert [(f.name, f.size) for f in head.files] == [("a.txt", 6), ("big.bin", 3_000_000), ("empty", 0)]
        assert data == b"job 3\n" + bytes(3_000_000)
        assert sorted(bundles(rig.journals(2))) == [0, 1, 2]
        entries = rig.journals(2)[0][1].entries
        assert np.all(entries["cores"] == 2)
        assert 3 * 2 * 0.2 <= core_seconds(entries) < 3 * 2 * 10
        assert rig.journals(1)[0][1].closed
        assert not list((tmp_path / "scratch-0").glob("job-*"))
        assert rig.progress(1).done == 5


def test_a_job_waits_until_its_slots_are_free_of_events(tmp_path: Path) -> None:
    """Nothing starts before the event side says so."""
    with pack(tmp_path) as rig:
        rig.events[0].linger = True
        rig.add(1, JobRequest(cores=3, memory_mb=100, walltime_s=30.0), jobs=1)
        rig.run(lambda: len(rig.events[0].leaving) == 3)
        assert sum(rig.agents[0].occupancy()) == 0
        rig.events[0].leave()
        rig.run(lambda: rig.queue.idle)
        assert sum(rig.agents[0].occupancy()) > 0
        assert rig.progress(1).done == 1


def test_a_failing_job_is_tried_on_both_nodes_and_journalled_as_failed(tmp_path: Path) -> None:
    """With what it said on stderr; the others are not disturbed."""
    with pack(tmp_path, ranks=2) as rig:
        script = 'if [ "$0" = 2 ]; then echo "no such particle" >&2; exit 3; fi'
        rig.add(1, jobs=6, attempts=2, command=(*shell(script), "{job}"))
        rig.run(lambda: rig.queue.idle)
        rig.finish()
        failed = [f for _, part in rig.journals(1) for f in part.failed]
        assert [(e.event, e.attempts) for f in failed for e in f.events] == [(2, 2)]
        text = failed[0].events[0].error
        assert "exit status 3" in text
        assert "no such particle" in text
        assert sorted(bundles(rig.journals(1))) == [0, 1, 3, 4, 5]


def test_one_of_two_clones_is_recorded(tmp_path: Path) -> None:
    """On whichever node it is first; the slow one is ended long before its time."""
    with pack(tmp_path, ranks=2) as rig:
        request = JobRequest(memory_mb=100, walltime_s=60.0, clones=2)
        script = f"mkdir {tmp_path}/first-$0 2>/dev/null || sleep 50; echo done > out"
        rig.add(1, request, jobs=3, command=(*shell(script), "{job}"), outputs=("out",))
        rig.run(lambda: rig.queue.idle)
        rig.finish()
        assert sorted(bundles(rig.journals(1))) == [0, 1, 2]


def test_revoked_jobs_are_ended_and_never_recorded(tmp_path: Path) -> None:
    """Their slots serve the next lease."""
    with pack(tmp_path) as rig:
        rig.add(1, jobs=6, command=shell(f"echo x >> {tmp_path}/begun; exec sleep 50"))
        rig.run((tmp_path / "begun").exists)
        rig.deliver(rig.queue.revoke(1, (1,), time.monotonic()))
        rig.run(lambda: rig.queue.idle)
        rig.add(2, jobs=4)
        rig.run(lambda: rig.progress(2).done == 4)
        rig.finish()
        assert rig.journals(1) == []


def test_a_task_that_ends_leaves_its_journal_closed_and_others_running(tmp_path: Path) -> None:
    """What is done of it is durable when it is told to have ended."""
    with pack(tmp_path) as rig:
        request = JobRequest(memory_mb=100, walltime_s=60.0)
        rig.add(1, request, jobs=8, command=(*shell('[ "$0" = 0 ] || exec sleep 50'), "{job}"))
        rig.add(2, jobs=1, command=shell("sleep 1"))
        rig.run(lambda: rig.progress(1).done == 1)
        rig.deliver(rig.queue.end_task(1, 0.1, time.monotonic()))
        rig.run(lambda: rig.progress(1).state == "ended")
        [(_, part)] = rig.journals(1)
        assert part.closed
        assert str(events_of(part.entries)) == "[0, 1)"
        assert not part.failed
        rig.run(lambda: rig.progress(2).done == 1)
        rig.queue.validate()


def test_a_drain_lets_short_jobs_finish_and_ends_long_ones(tmp_path: Path) -> None:
    """What is ended by it has not failed."""
    with pack(tmp_path) as rig:
        script = f'trap "" TERM; echo x >> {tmp_path}/begun; [ "$0" = 0 ] && exec sleep 0.5; exec sleep 50'
        rig.add(1, jobs=9, attempts=1, command=(*shell(script), "{job}"))
        rig.run(lambda: (tmp_path / "begun").exists() and len((tmp_path / "begun").read_text()) == 8)
        begin = time.monotonic()
        rig.finish(grace_s=3.0)
        assert time.monotonic() - begin < 25.0, "jobs that do not obey do not hold up the end"
        [(_, part)] = rig.journals(1)
        assert str(events_of(part.entries)) == "[0, 1)"
        assert not part.failed
        assert rig.queue.error is None


def test_a_dead_keeper_ends_the_pack_to_be_started_again(tmp_path: Path) -> None:
    """What is recorded stays; the queue tells the other node to finish."""
    with pack(tmp_path, ranks=2) as rig:
        rig.add(1, jobs=8, command=(*shell('[ "$0" = 0 ] || exec sleep 50'), "{job}"))
        rig.run(lambda: rig.progress(1).done == 1)
        os.kill(rig.keepers[0].pid, signal.SIGKILL)
        rig.run(lambda: rig.queue.ended)
        assert rig.queue.again
        assert "keeper" in (rig.queue.error or "")
        assert sorted(bundles(rig.journals(1))) == [0]
        assert all(part.closed for _, part in rig.journals(1))


def test_a_spool_folder_that_refuses_writing_ends_the_pack(tmp_path: Path) -> None:
    """The journal cannot be begun: nothing is said to be done."""
    with pack(tmp_path) as rig:
        rig.journal(1, 0).write_bytes(b"in the way")
        rig.add(1, jobs=1)
        rig.run(lambda: rig.queue.ended)
        assert "refuses writing" in (rig.queue.error or "")
        assert rig.progress(1).done == 0


@pytest.mark.alone
def test_short_commands_keep_the_cores_busy(tmp_path: Path) -> None:
    """Many jobs of some milliseconds: cores are not left idle while messages travel."""
    with pack(tmp_path) as rig:
        rig.add(1, jobs=300, command=shell("exec sleep 0.05"))
        rig.run(lambda: rig.progress(1).done >= 30)
        rig.agents[0].occupancy()
        best = 0.0
        for count in range(60, 271, 30):  # what else the machine does may spoil some of the windows
            rig.run(lambda: rig.progress(1).done >= count)  # noqa: B023
            best = max(best, sum(rig.agents[0].occupancy()) / CORES)
        rig.run(lambda: rig.queue.idle)
        assert best > 0.7
        rig.finish()
        assert len(bundles(rig.journals(1))) == 300


def test_a_node_that_is_unfit_runs_no_job(tmp_path: Path) -> None:
    """All run on the other one, and it leaves in order."""
    with pack(tmp_path, ranks=2, unfit="too little memory") as rig:
        rig.add(1, jobs=6)
        rig.run(lambda: rig.queue.idle)
        rig.finish()
        assert not rig.journal(1, 0).exists()
        assert len(rig.journals(1)[0][1].entries) == 6
        assert rig.queue.complaints == ("node 0 gets no jobs: too little memory",)
