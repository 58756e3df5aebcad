"""What the running edge learns: waits, start-ups, preemptions, costs; kept in its store, told to planner and `explain`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.explaining import EXPLANATION, explain, show_text
from hpcpanda_edge.files import Collected, ReadJournal
from hpcpanda_edge.journal_names import JournalName
from hpcpanda_edge.learning import SAVE_S, TASKS_S, Learner, predict, read_knowledge
from hpcpanda_edge.learning_journals import REPORTS
from hpcpanda_edge.looking import look
from hpcpanda_edge.records import AllocationRecord, JournalRecord
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import situation
from support.edge import FakeDispatcher, FakeScheduler, running_edge, small_site, small_task, until

from hpcpanda.allocation.job_limits import Watch
from hpcpanda.allocation.plan import AllocationStatus, PackStatus
from hpcpanda.allocation.spool import Spool, journal_name
from hpcpanda.domain.exchange import Grants, LeaseGrant
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.bundle import JobReport, bundle
from hpcpanda.events.journal import ENTRY, FailedInEpoch, JournalPart, segment_path
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.tasks import JobEnd

NOW = 1_790_000_000.0
WALLTIME_S = 3600.0
JOURNAL = journal_name("a1", "p1", 0, 0)


def job_spec(**request: Any) -> TaskSpec:
    return TaskSpec(
        name="scan",
        jobs=1000,
        payload=JobPayload(command=("true",)),
        job=JobRequest(**({"memory_mb": 100, "walltime_s": 200.0, "cores": 2} | request)),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
    )


class World:
    """An edge's memory with a task of events (1) and one of jobs (2), and what learns from it."""

    def __init__(self, folder: Path) -> None:
        self.site: Site = small_site(folder)
        self.spool = Spool(folder)
        self.store = Store(folder / "edge.sqlite")
        for task_id, spec in ((1, small_task()), (2, job_spec())):
            grant = LeaseGrant(
                task_id=task_id, epoch=1, events=IntervalSet.span(0, 50), spec=spec, expires_in_s=9.0
            )
            with self.store.transaction():
                accounts.take_grants(self.store, Grants(leases=(grant,)))
        self.start(NOW)

    def start(self, now: float) -> None:
        """Begin, or begin again."""
        self.learner = Learner(self.store, self.spool, self.site, now)

    @property
    def known(self) -> Knowledge:
        return self.learner.knowledge

    def put(self, **fields: Any) -> None:
        """An allocation as it is now."""
        before = self.store.allocations.get("a1")
        record = before or AllocationRecord(
            allocation_id="a1", nodes=4, walltime_s=WALLTIME_S, packs=(), created=NOW, native_id="7"
        )
        with self.store.transaction():
            self.store.allocations.put(replace(record, **fields))

    def look(self, now: float, *packs: PackStatus, state: str | None = None) -> None:
        """See where things are; the head says so."""
        status = AllocationStatus(
            allocation_id="a1", state=state or "running", head_pid=1, host="n", written=now, inbox_read=0,
            packs=packs,
        )  # type: ignore[arg-type]  # fmt: skip
        self.learner.look({"a1": status} if packs or state else {}, now)

    def journal(self, task_id: int, rows: Any = (), *failed: FailedEvent, now: float = NOW) -> Collected:
        """A journal that newly says something, and what is learnt from it."""
        entries = np.zeros(len(rows), dtype=ENTRY)
        for entry, row in zip(entries, rows, strict=True):
            for name, value in row.items():
                entry[name] = value
        part = JournalPart(
            header=None, schema=None, entries=entries, closed=False, next_offset=1,
            failed=(FailedInEpoch(epoch=1, events=failed),) if failed else (),
        )  # fmt: skip
        name = JournalName.parse(JOURNAL)
        assert name is not None
        record = JournalRecord(name=JOURNAL, task_id=task_id)
        found = Collected(journals=[ReadJournal(name=name, record=record, part=part)])
        self.learner.saw(found, self.learner.reports_of(found), now)
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


BUSY = PackStatus(pack_id="p1", state="running", cores=8, cores_busy=5.0)
STARTING = PackStatus(pack_id="p1", state="starting")


def run(world: World, *, in_window: bool = False) -> None:
    """An allocation that queues for 300 s and starts."""
    world.look(NOW)
    world.put(state=AllocationState.QUEUED, in_window=in_window)
    world.look(NOW + 1)
    world.put(state=AllocationState.RUNNING, started=NOW + 300, life=0)
    world.look(NOW + 301, STARTING)


def hazard(world: World) -> tuple[float, float]:
    """Preemptions and node-hours seen."""
    (found,) = world.known.hazards.values()
    return sum(found.preemptions), sum(found.node_hours)


def test_the_wait_in_the_queue_is_learnt(world: World) -> None:
    """From asking to starting, for the shape that was asked for."""
    run(world)
    (row,) = world.learner.predictions(NOW + 302).forecast.queue_waits
    assert (row.nodes, row.seconds, row.seen) == (4, 3600.0, 1)
    assert row.median_s == pytest.approx(300, rel=0.02)


def test_a_request_for_a_window_says_nothing_of_the_queue(world: World) -> None:
    """It was asked for because it would start at once."""
    run(world, in_window=True)
    assert world.learner.predictions(NOW + 302).forecast.queue_waits == ()


def test_what_still_waits_is_told_as_at_least_that(world: World) -> None:
    """The planner sees the wait grow before anything has started; a cancelled one counts the same."""
    world.look(NOW)
    world.put(state=AllocationState.QUEUED)
    world.look(NOW + 1)
    (row,) = predict(world.known, world.store, world.site, NOW + 1000).forecast.queue_waits
    assert (row.seen, row.median_s) == (0, pytest.approx(1000, rel=0.02))
    world.put(state=AllocationState.ENDED, cancelled=True)
    world.look(NOW + 2000)
    (row,) = predict(world.known, world.store, world.site, NOW + 2000).forecast.queue_waits
    assert (row.seen, row.median_s) == (0, pytest.approx(2000, rel=0.02))


def test_start_up_is_from_the_begin_to_the_first_work(world: World) -> None:
    """Once for each run, however often the head says that it is busy."""
    run(world)
    world.look(NOW + 308, STARTING)
    assert not world.known.start_up
    world.look(NOW + 312, BUSY)
    world.look(NOW + 320, BUSY)
    assert world.known.start_up.total == pytest.approx(1.0, rel=1e-3)
    assert world.known.forecast(NOW + 312).startup_s == pytest.approx(12.0, rel=0.02)


def test_an_allocation_that_ends_in_order_was_not_preempted(world: World) -> None:
    """It held its nodes until then; its head's last word may come after the batch system's."""
    run(world)
    world.look(NOW + 400, BUSY)
    world.put(state=AllocationState.ENDED)
    world.look(NOW + 1200, BUSY)
    world.look(NOW + 1201, state="ended")
    world.put(state=AllocationState.CLOSED)
    world.look(NOW + 1202, state="ended")
    preemptions, node_hours = hazard(world)
    assert preemptions == 0
    assert node_hours == pytest.approx(4 * 900 / 3600, rel=0.01)


@pytest.mark.parametrize("how", ["killed", "told to end"])
def test_an_allocation_that_ends_early_without_order_was_preempted(world: World, how: str) -> None:
    """Its head falls silent, or says that the batch system has told it to end."""
    run(world)
    world.look(NOW + 400, BUSY)
    world.put(state=AllocationState.ENDED)
    if how == "killed":
        world.look(NOW + 1200)
    else:
        world.look(NOW + 1200, replace(BUSY, told_to_end=True), state="ended")
    world.put(state=AllocationState.CLOSED)
    world.look(NOW + 1201)
    assert hazard(world)[0] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("order", ["drained", "cancelled", "wall"])
def test_ends_that_are_ours_are_no_preemptions(world: World, order: str) -> None:
    """The edge drains or cancels it, or its walltime is over."""
    run(world)
    fields = {"draining": order == "drained", "cancelled": order == "cancelled"}
    world.put(state=AllocationState.ENDED, **fields)
    end = NOW + 300 + WALLTIME_S if order == "wall" else NOW + 600
    world.look(end)
    world.put(state=AllocationState.CLOSED)
    world.look(end + 1)
    assert hazard(world)[0] == 0


def test_a_requeued_allocation_was_preempted_and_waits_anew(world: World) -> None:
    """The second wait is not the shape's first, and a second start-up is learnt."""
    run(world)
    world.look(NOW + 310, BUSY)
    world.put(state=AllocationState.QUEUED, started=None)
    world.look(NOW + 700)
    world.put(state=AllocationState.RUNNING, started=NOW + 5000)
    world.look(NOW + 5000, STARTING)
    world.put(life=1)
    world.look(NOW + 5020, BUSY)
    preemptions, node_hours = hazard(world)
    assert preemptions == pytest.approx(1.0, rel=0.01)
    assert node_hours == pytest.approx(4 * (400 + 20) / 3600, rel=0.01)
    (row,) = world.known.forecast(NOW + 5020).queue_waits
    assert row.median_s == pytest.approx(300, rel=0.02)
    assert world.known.start_up.total == pytest.approx(2.0, rel=0.01)


def test_what_happened_while_no_edge_ran_is_not_learnt(world: World) -> None:
    """An allocation that is found running gives neither wait nor start-up, and its node-hours from now on."""
    world.put(state=AllocationState.RUNNING, started=NOW, life=0)
    world.look(NOW + 2000, BUSY)
    world.look(NOW + 2360, BUSY)
    assert not world.known.start_up
    assert world.known.waits.seen == {}
    assert hazard(world) == (0.0, pytest.approx(4 * 360 / 3600, rel=0.01))


def test_costs_of_events_are_learnt_from_journals(world: World) -> None:
    """Core-seconds an event over ranges; entries without time are no measure."""
    world.journal(1, [{"first": 0, "last": 10, "wall_s": 2.0}, {"first": 10, "last": 11, "wall_s": 0.0}])
    assert world.known.event_seconds(1, NOW) == pytest.approx(0.2)
    assert world.learner.predictions(NOW).event_seconds == {1: pytest.approx(0.2)}
    assert world.known.tasks[1].events_seen == 10


def test_times_of_jobs_are_learnt_and_told_to_the_planner(world: World) -> None:
    """Of 2 cores each; the view of the task has the predicted walltime."""
    world.journal(2, [{"first": i, "last": i + 1, "wall_s": 30.0, "cores": 2} for i in range(100)])
    assert world.known.event_seconds(2, NOW) == pytest.approx(60.0)
    predictions = world.learner.predictions(NOW)
    assert predictions.job_seconds[2] == pytest.approx(30.0, rel=0.03)
    seen = situation(world.store, {}, site=world.site, now=NOW, predictions=predictions)
    task = next(t for t in seen.tasks if t.task_id == 2)
    assert task.job_seconds == predictions.job_seconds[2]
    assert task.job is not None
    assert task.job.walltime_s == 200.0
    assert seen.forecast == predictions.forecast


def test_scouts_are_no_prediction_yet(world: World) -> None:
    """Three jobs: the planner is told what they cost in the mean, and no walltime; four make one, a second later."""
    rows = [{"first": i, "last": i + 1, "wall_s": 30.0, "cores": 2} for i in range(4)]
    world.journal(2, rows[:3])
    told = world.learner.predictions(NOW)
    assert (told.job_seconds, told.event_seconds) == ({}, {2: pytest.approx(60.0)})
    world.journal(2, rows[3:])
    assert 2 in world.learner.predictions(NOW + TASKS_S).job_seconds


def test_killed_jobs_are_known_by_the_words_of_the_limits(world: World, tmp_path: Path) -> None:
    """A job that ran into its walltime or its memory is censored there: the very sentence that the node writes."""
    request = JobRequest(walltime_s=0.1, memory_mb=16)
    late = Watch(request, tmp_path, (), time.monotonic() - 1.0).look(time.monotonic())
    assert late is not None
    fat = f"used 17 MiB; the limit is {request.memory_mb} MiB (job.memory_mb)"
    world.journal(2, [], FailedEvent(event=1, error=late.why), FailedEvent(event=2, error=fat))
    world.journal(2, [], FailedEvent(event=3, error="exit status 1"))
    known = world.known.tasks[2]
    assert known.ends == {JobEnd.LIMIT: 1}
    assert known.walltimes.censored.total == known.memory.censored.total == pytest.approx(1.0)


def test_memory_is_read_from_few_reports(world: World) -> None:
    """Of the first jobs of a journal; a report that is damaged or gone costs nothing."""
    path = world.spool.events(2) / JOURNAL
    path.parent.mkdir(parents=True)
    rows, data = [], b""
    for job in range(2 * REPORTS):
        report = JobReport(
            job=job, attempt=1, host="n", exit_status=0, started=NOW, wall_s=5.0, cpu_s=5.0, max_rss_mb=64.0
        )
        piece = b"".join(bytes(p) for p in bundle(report, []))
        if job == 1:
            piece = b"x" * len(piece)
        rows.append({"first": job, "last": job + 1, "wall_s": 5.0, "offset": len(data), "length": len(piece)})
        data += piece
    segment_path(path, 0).write_bytes(data)
    world.journal(2, rows)
    assert world.known.tasks[2].memory.ended.total == pytest.approx(REPORTS - 1)
    segment_path(path, 0).unlink()
    world.journal(2, rows)
    assert world.known.tasks[2].memory.ended.total == pytest.approx(REPORTS - 1)


def test_what_was_learnt_survives_a_restart(world: World) -> None:
    """It is written at most every half minute, or at once when told so, and not when nothing is new."""
    world.journal(1, [{"first": 0, "last": 10, "wall_s": 2.0}])
    world.learner.save(NOW + SAVE_S - 1)
    assert world.store.learnt is None
    world.learner.save(NOW + SAVE_S)
    kept = world.store.learnt
    world.learner.save(NOW + 3 * SAVE_S)
    assert world.store.learnt is kept
    path = world.spool.path / "edge.sqlite"
    again = Store(path, read_only=True)
    assert read_knowledge(again, NOW + 99) == world.known
    again.close()


def test_what_cannot_be_understood_is_learnt_anew(world: World) -> None:
    """Damaged or of another version: the edge goes on with nothing learnt."""
    world.store.keep_learnt('{"format": 99}')
    world.start(NOW)
    assert world.known == Knowledge.fresh(NOW)
    world.journal(1, [{"first": 0, "last": 10, "wall_s": 2.0}])
    world.learner.save(NOW, at_once=True)
    world.start(NOW)
    assert world.known.event_seconds(1, NOW) == pytest.approx(0.2)


def test_a_store_of_before_learning_is_taken_over(tmp_path: Path) -> None:
    """It has no place for it yet: looked at it tells nothing, opened by an edge it gets one."""
    path = tmp_path / "edge.sqlite"
    store = Store(path)
    store._connection.execute("DROP TABLE learnt")
    store.close()
    looked = Store(path, read_only=True)
    assert looked.learnt is None
    looked.close()
    store = Store(path)
    store.keep_learnt("something")
    store.close()
    looked = Store(path, read_only=True)
    assert looked.learnt == "something"
    looked.close()


def test_explain_shows_what_was_learnt(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """In words and as data: start-up, hazard, waits, cost, walltime, how promises held."""
    run(world)
    world.look(NOW + 312, BUSY)
    world.look(NOW + 700, BUSY)
    for _ in range(2):
        world.journal(
            2, [{"first": i, "last": i + 1, "wall_s": 30.0, "cores": 2} for i in range(50)], now=NOW + 9
        )
    world.learner.save(NOW, at_once=True)
    told = explain(look(world.site, world.store, running=False, now=NOW + 700))
    (task,) = told.learnt.tasks
    assert (task.task_id, task.jobs_ended, task.scouts_missing) == (2, 100, 0)
    assert (task.promises.jobs, task.promises.exceeded_share) == (50, 0.0)
    assert task.job_seconds == pytest.approx(30, rel=0.03)
    assert json.loads(EXPLANATION.dump_json(told))["learnt"]["start_ups_seen"] == 1
    show_text(told)
    text = capsys.readouterr().out
    assert "An allocation takes 12 s to begin (1 start seen)." in text
    assert "60 core-seconds a job (100 seen)" in text
    assert "0.0% of 50 took longer than promised (10% may)" in text
    assert "Up to 4 nodes for 1 h 00 min wait" in text


async def test_a_running_edge_learns(tmp_path: Path) -> None:
    """With real allocations of the stand-in, from grant to the last commit: cost and node-hours are in the store after
    the edge has stopped."""
    site = small_site(tmp_path / "spool")
    dispatcher, scheduler = FakeDispatcher(), FakeScheduler()
    task = dispatcher.submit(small_task(60, event_s=0.02, chunk=5))
    try:
        async with running_edge(site, dispatcher, scheduler) as edge:
            await until(lambda: dispatcher.tasks[task].state is TaskState.DONE)
            await until(lambda: edge.control.learner.knowledge.hazards)  # its allocation has ended
    finally:
        scheduler.kill_all()
    store = Store(tmp_path / "spool" / "edge" / "edge.sqlite", read_only=True)
    known = read_knowledge(store, time.time())
    store.close()
    assert known.tasks[task].events_seen == 60
    assert sum(sum(h.node_hours) for h in known.hazards.values()) > 0
    assert sum(sum(h.preemptions) for h in known.hazards.values()) == 0
