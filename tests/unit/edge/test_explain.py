"""`explain`: a sentence for every reason, with the numbers that matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.explaining import EXPLANATION, Explanation, explain, show_text
from hpcpanda_edge.looking import Look, look
from hpcpanda_edge.outlook import OUTLOOK, STALE_S, GivenBack, Outlook
from hpcpanda_edge.output import edge_status
from hpcpanda_edge.reasons import SENTENCES, told, why
from hpcpanda_edge.records import (
    AllocationRecord,
    JournalRecord,
    OutputRecord,
    OutputState,
    PackRecord,
    PartRecord,
)
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.store import Store
from support.edge import small_site, small_task

from hpcpanda.allocation.plan import AllocationStatus, PackStatus, TaskProgress
from hpcpanda.allocation.spool import STATUS, Spool, write_message
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.exchange import Grants, LeaseGrant, OutputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.site_report import MAX_SENTENCE
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.why import Why
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.planning.actions import Reason

NOW = 1_000_000.0
HERE = "a1"


def job_spec(jobs: int = 10, **request: Any) -> TaskSpec:
    return TaskSpec(
        name="scan",
        jobs=jobs,
        payload=JobPayload(command=("true",)),
        job=JobRequest(**({"memory_mb": 100, "walltime_s": 20.0} | request)),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
    )


class Books:
    """What an edge of 4 nodes with 2 cores remembers of task 1, and what its running process has left."""

    def __init__(self, folder: Path) -> None:
        self.site = small_site(folder, nodes=4, allocations=2)
        self.folder = StateFolder.of(folder)
        self.folder.create()
        self.store = Store(self.folder.database)
        self.outlook = Outlook(written=NOW, windows=None, windows_unknown="a laptop has no queue")

    def task(self, spec: TaskSpec, *, leased: int = 0, **fields: Any) -> None:
        grant = LeaseGrant(
            task_id=1, epoch=3, events=IntervalSet.span(0, leased), spec=spec, expires_in_s=9.0
        )
        with self.store.transaction():
            accounts.take_grants(self.store, Grants(leases=(grant,)))
            self.store.tasks.put(replace(self.store.tasks[1], **fields))

    def allocation(
        self,
        *,
        name: str = HERE,
        held: int = 0,
        of_jobs: bool = False,
        kind: str = "work",
        bare: bool = False,
        **fields: Any,
    ) -> None:
        """With one pack of the task, or ``bare``."""
        part = PartRecord(task_id=1, of_jobs=of_jobs)
        values: dict[str, Any] = {"state": AllocationState.QUEUED, "created": NOW - 90, "nodes": 2} | fields
        with self.store.transaction():
            pack = PackRecord(pack_id="p1", kind=kind, nodes=values["nodes"], parts=(part,))  # type: ignore[arg-type]
            self.store.allocations.put(
                AllocationRecord(
                    allocation_id=name,
                    walltime_s=60.0,
                    packs=() if bare else (pack,),
                    why="2 nodes for 60 s; a test",
                    **values,
                )
            )
            if held:
                accounts.hand_out(self.store, 1, f"{name}-p1", held)

    def said(self, *progress: TaskProgress, **fields: Any) -> None:
        """What the head of the allocation has written."""
        over = PackStatus(pack_id="p0", state="ended", cores=4, complaints=("over",))
        pack = PackStatus(pack_id="p1", state="running", cores=4, tasks=progress, **fields)
        folder = Spool(Path(self.site.spool)).allocation(HERE)
        folder.create()
        status = AllocationStatus(
            allocation_id=HERE, state="running", head_pid=1, host="n1", written=NOW - 1, inbox_read=0,
            packs=(over, pack),
        )  # fmt: skip
        write_message(folder.status, STATUS, status)

    def look(self, *, running: bool = True) -> Look:
        write_message(self.folder.outlook, OUTLOOK, self.outlook)
        return look(self.site, self.store, running=running, now=NOW)

    def told(self) -> tuple[str, str]:
        """Reason and sentence of the task."""
        (task,) = explain(self.look(), 1).tasks
        return task.reason, task.why


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    made.store.close()


def test_every_reason_has_a_sentence() -> None:
    """A reason that is added is explained."""
    assert set(SENTENCES) == set(Reason)


def test_a_job_that_is_too_large_is_told_by_how_much(books: Books) -> None:
    """What it asks for, and what there is."""
    books.task(job_spec(cores=4), leased=10)
    assert books.told() == (
        "does-not-fit", "A job asks for 4 cores, where there are 2: it can never run here.",
    )  # fmt: skip


def test_a_task_in_a_queued_allocation(books: Books) -> None:
    """How many of it, where, and since when."""
    books.task(job_spec(), leased=10)
    books.allocation(held=10, of_jobs=True)
    assert books.told() == (
        "starting", "10 jobs of it are in pack p1 of allocation a1, which waits in the batch queue for 1 min 30 s now.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (AllocationState.PLANNED, "which is about to be submitted."),
        (AllocationState.RUNNING, "which is starting."),
    ],
)
def test_a_task_that_starts(books: Books, state: AllocationState, says: str) -> None:
    """Before the queue, and behind it."""
    books.task(small_task(), leased=10)
    books.allocation(held=10, state=state)
    assert books.told()[1] == f"10 events of it are in pack p1 of allocation a1, {says}"


def test_work_for_which_there_is_room_is_about_to_start(books: Books) -> None:
    """The next round plans it."""
    books.task(small_task(), leased=10)
    assert books.told() == ("starting", "An allocation for 10 events is about to be asked for.")


def test_a_running_task(books: Books) -> None:
    """How much is in hand, and with how many cores."""
    books.task(small_task(), leased=10)
    books.allocation(held=10, state=AllocationState.RUNNING, started=NOW - 5)
    books.said(TaskProgress(task_id=1, waiting=4, backlog_s=1.0))
    assert books.told() == (
        "running", "10 events of it are in hand in pack p1 of allocation a1, on nodes with 4 cores.",
    )  # fmt: skip


def test_one_is_not_several(books: Books) -> None:
    """The sentence is right for a single job, too; a pack that was told to end says so."""
    books.task(job_spec(1), leased=1)
    books.allocation(held=1, of_jobs=True, state=AllocationState.RUNNING, started=NOW - 5)
    with books.store.transaction():
        record = books.store.allocations[HERE]
        books.store.allocations.put(record.with_pack(replace(record.packs[0], draining=True)))
    books.said(TaskProgress(task_id=1, cores_busy=1.0))
    assert books.told()[1].startswith("1 job of it is in hand in pack p1")
    (pack,) = explain(books.look()).allocations[0].packs
    assert (pack.draining, pack.does) == (True, ("task 1 'scan': 1 job on 1.0 cores, 0 waiting, 0 done",))


def test_a_task_whose_inputs_are_copied(books: Books) -> None:
    """What the running edge says that it waits for."""
    books.task(job_spec(), leased=10)
    books.outlook = replace(
        books.outlook, staged={1: EMPTY}, staging={1: "10 input files are still to be copied"}
    )
    assert books.told() == (
        "staging", "Its inputs are not in place: 10 input files are still to be copied.",
    )  # fmt: skip
    (line,) = edge_status(books.look()).tasks
    assert (line.unit, line.staging, line.waiting) == ("job", 10, 10)


def test_a_task_that_backs_off(books: Books) -> None:
    """Why, until when, and what it said last."""
    books.task(small_task(), leased=10, fruitless=3, not_before=NOW + 8, error="no module named x")
    reason, why = books.told()
    assert reason == "backing-off"
    assert why.startswith("3 packs ended without a finished event; the next try is in 8 s, at ")
    assert why.endswith("The last said: no module named x")


def test_a_merge_that_backs_off(books: Books) -> None:
    """It is not said to have finished no event."""
    died = {"fruitless": 2, "not_before": NOW + 4, "error": "the pack died"}
    books.task(small_task(), leased=10, state=TaskState.MERGING, **died)
    done = IntervalSet.span(0, 10)
    with books.store.transaction():
        books.store.journals.put(JournalRecord(name="a0-p1-i0-r0.journal", task_id=1, chosen={3: done}))
        lease = books.store.leases[1, 3]
        ledger = replace(lease.ledger, ready=EMPTY, done=done)
        books.store.leases.put(replace(lease, ledger=ledger, acknowledged=done))
    reason, why = books.told()
    assert reason == "backing-off"
    assert why.startswith("Its last try failed; the next is in 4 s, at ")
    assert why.endswith("The last said: the pack died")


def test_a_merge_of_jobs_that_waits_is_not_said_to_be_a_job(books: Books) -> None:
    """All its jobs are done: what waits for a node is the merge, and it does not need what a job needs."""
    books.task(job_spec(nodes=2), leased=1, state=TaskState.MERGING)
    done = IntervalSet.span(0, 1)
    with books.store.transaction():
        books.store.journals.put(JournalRecord(name="a0-p1-i0-r0.journal", task_id=1, chosen={3: done}))
        lease = books.store.leases[1, 3]
        ledger = replace(lease.ledger, ready=EMPTY, done=done)
        books.store.leases.put(replace(lease, ledger=ledger, acknowledged=done))
    books.allocation(name="a1", nodes=1, bare=True)
    books.allocation(name="a2", nodes=1, bare=True)
    assert books.told() == (
        "allocation-limit",
        "Its merge needs a node, and all allocations that limits.allocations allows (2) are in use.",
    )


def test_the_limits_of_the_site_file(books: Books) -> None:
    """Which of them, and how far it is used."""
    books.task(job_spec(nodes=2), leased=1)
    books.allocation(name="a1", nodes=1, bare=True)
    books.allocation(name="a2", nodes=1, bare=True)
    assert books.told() == (
        "allocation-limit",
        "A job needs 2 nodes for 20 s, and all allocations that limits.allocations allows (2) are in use.",
    )
    with books.store.transaction():
        books.store.allocations.drop("a2")
        books.store.allocations.put(replace(books.store.allocations["a1"], nodes=3))
    assert books.told() == (
        "node-limit",
        "A job needs 2 nodes for 20 s; 3 of the 4 nodes that the site file allows are in use.",
    )


def test_a_batch_system_that_refuses(books: Books) -> None:
    """Its own words, and when it is asked again."""
    books.task(small_task(), leased=10)
    books.outlook = replace(
        books.outlook, submit_not_before=NOW + 16, refusal="sbatch: error: invalid account"
    )
    assert books.told() == (
        "submission-failing",
        (
            "The batch system refused the last submission; the next is in 16 s at the earliest. "
            "It said: sbatch: error: invalid account"
        ),
    )


def test_no_backfill_window_is_long_enough(books: Books) -> None:
    """What it needs, what there is, and that a request waits already."""
    books.task(job_spec(walltime_s=50.0), leased=10)
    books.allocation(nodes=1, bare=True)
    books.outlook = replace(
        books.outlook, windows=(BackfillWindow(queue=None, nodes=2, seconds=10),), windows_unknown=None
    )
    reason, why = books.told()
    assert reason == "no-window"
    assert why == (
        "A job needs a node for 50 s, and no backfill window takes that (there is the window of 2 nodes for 10 s "
        "in the default queue); a request waits in the queue already."
    )
    assert explain(books.look()).notes == ("There is the window of 2 nodes for 10 s in the default queue.",)


def test_work_that_was_too_much_for_its_packs(books: Books) -> None:
    """It was given back while packs ran that have ended since: they are not spoken of as if they were there."""
    books.task(small_task(), leased=0)
    books.outlook = replace(books.outlook, given_back={1: GivenBack(at=NOW - 12, reason=Reason.RUNNING)})
    assert books.told() == (
        "no-work",
        "Nothing of it is here to run; what was here went back to the dispatcher 12 s ago: its packs had enough.",
    )


def test_work_that_was_given_back(books: Books) -> None:
    """When, and for what reason."""
    books.task(job_spec(cores=4))
    books.outlook = replace(books.outlook, given_back={1: GivenBack(at=NOW - 12, reason=Reason.DOES_NOT_FIT)})
    assert books.told() == (
        "no-work",
        (
            "Nothing of it is here to run; what was here went back to the dispatcher 12 s ago: "
            "a job asks for 4 cores, where there are 2: it can never run here."
        ),
    )


def test_an_mpi_job_waits_for_nodes(books: Books) -> None:
    """So many together, and so many are free."""
    books.task(job_spec(nodes=2), leased=1)
    books.allocation(nodes=4, state=AllocationState.RUNNING, started=NOW - 5)
    with books.store.transaction():
        books.store.tasks.put(replace(books.store.tasks[1], task_id=2))
        (busy,) = books.store.allocations[HERE].packs
        busy = replace(busy, nodes=3, parts=(PartRecord(task_id=2, of_jobs=True),))
        books.store.allocations.put(replace(books.store.allocations[HERE], packs=(busy,)))
    books.said(TaskProgress(task_id=2, waiting=0, cores=6), job_cores=6)
    assert books.told() == (
        "waiting-for-nodes",
        "A job needs 2 nodes for 20 s together; at most 1 of an allocation are free, and packs make place.",
    )


OUTPUT = OutputFile(
    task_id=1, path="/out/1.h5", manifest="/out/1.json", events=IntervalSet.span(0, 10), digest="0" * 64, size=1
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason", "why"),
    [
        ({"state": TaskState.MERGING}, "waiting-for-commits", "There is nothing of it to merge here."),
        ({"fault": "no module named x"}, "fault", "It cannot run here: no module named x"),
        (
            {"state": TaskState.ABORTED},
            "final",
            "The dispatcher calls it aborted; what is left of it here is being removed.",
        ),
        ({}, "no-work", "Nothing of it is here to run; more is asked for as capacity allows."),
    ],
)
def test_on_the_way_to_its_end(books: Books, fields: dict[str, Any], reason: str, why: str) -> None:
    """Merge, fault and end."""
    books.task(small_task(), **fields)
    assert books.told() == (reason, why)


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ([OutputState.RECORDED], "Its merged file is /out/1.h5."),
        ([OutputState.MOVED], "Its merged file is /out/1.h5; the dispatcher is being told."),
        ([OutputState.RECORDED] * 2, "Its 2 merged files are made, the last is /out/2.h5."),
        (
            [OutputState.RECORDED, OutputState.MOVED, OutputState.MADE],
            "Its 3 merged files are made, the last is /out/3.h5; 1 is to be moved; the dispatcher is being told of 1.",
        ),
    ],
)
def test_a_task_that_is_merged(books: Books, states: list[OutputState], sentence: str) -> None:
    """Where its files are, and what the dispatcher does not know yet."""
    books.task(small_task(), state=TaskState.MERGING)
    with books.store.transaction():
        for number, state in enumerate(states):
            events = IntervalSet.span(10 * number, 10 * number + 10)
            file = replace(OUTPUT, path=f"/out/{number + 1}.h5", events=events)
            books.store.outputs.put(OutputRecord(file=file, state=state))
    assert books.told() == ("merged", sentence)


def test_a_merge_that_runs(books: Books) -> None:
    """Where, and how far it is."""
    books.task(small_task(), state=TaskState.MERGING)
    books.allocation(kind="merge", state=AllocationState.RUNNING, started=NOW - 5)
    books.said(progress=0.25)
    assert books.told() == ("merging", "It is merged in pack p1 of allocation a1: 25% done.")
    assert explain(books.look()).allocations[0].packs[0].does == ("task 1 'sand': 25% merged",)


def test_an_edge_that_ends(books: Books) -> None:
    """It says so, and what packs still have."""
    books.task(small_task(), leased=10)
    books.outlook = replace(books.outlook, draining=True)
    assert books.told() == (
        "draining", "The edge is ending: it starts nothing new; 0 events of it are in hand in packs.",
    )  # fmt: skip


# ---- as data ----


def test_what_is_not_asked_for_is_told_with_its_reason_and_numbers(books: Books) -> None:
    """As text and as data, for the task and for the edge."""
    books.task(job_spec(), leased=10)
    for name in ("a1", "a2"):
        books.allocation(name=name, bare=True, nodes=2)
    said = explain(books.look())
    assert [(w.code, w.numbers) for w in said.refusals] == [("allocation-limit", {"limit": 2})]
    assert said.tasks[0].numbers["allocations"] == 2
    assert said.tasks[0].numbers["ready"] == 10
    assert '"code": "allocation-limit"' in EXPLANATION.dump_json(said, indent=2).decode()


def test_an_allocation_tells_its_reason_as_data(books: Books) -> None:
    """One of an earlier version has the sentence only."""
    books.task(job_spec(), leased=10)
    because = Why(code="fills-window", sentence="fits into the window", numbers={"nodes": 2.0})
    books.allocation(name="a1", bare=True, because=because)
    books.allocation(name="a2", bare=True)
    assert [a.because for a in explain(books.look()).allocations] == [because, None]


def test_the_dispatcher_is_told_why_tasks_are_where_they_are(books: Books) -> None:
    """The same code, sentence and numbers; a sentence without end is cut."""
    books.task(job_spec(cores=4), leased=10)
    (said,) = told(books.look())
    assert (said.task_id, said.why.code) == (1, "does-not-fit")
    assert said.why == why(books.look(), 1)
    books.task(job_spec(), leased=10, fault="x" * 9000)
    (said,) = told(books.look())
    assert len(said.why.sentence) == MAX_SENTENCE


# ---- allocations ----


def explained(books: Books, **words: Any) -> Explanation:
    return explain(books.look(**words))


def test_an_allocation_has_its_reason_and_its_packs_say_what_they_do(books: Books) -> None:
    """Its shape, its time, and of each task what runs, waits and is done; nodes that complain."""
    books.task(job_spec(20), leased=20)
    books.allocation(
        held=10, of_jobs=True, state=AllocationState.RUNNING, started=NOW - 5, native_id="77", in_window=True
    )
    progress = TaskProgress(task_id=1, waiting=6, done=3, cores=4, cores_busy=3.5, backlog_s=1.0)
    books.said(progress, cores_busy=3.5, complaints=("node 1 gets no jobs: n2: no scratch",))
    (allocation,) = explained(books).allocations
    assert (allocation.native_id, allocation.state) == ("77", "running, 54 s of work left")
    assert (allocation.why, allocation.in_window) == ("2 nodes for 60 s; a test", True)
    (pack,) = allocation.packs
    assert (pack.kind, pack.nodes, pack.cores, pack.cores_busy) == ("work", 2, 4, 3.5)
    assert pack.does == ("task 1 'scan': 4 jobs on 3.5 cores, 6 waiting, 3 done",)
    assert pack.complaints == ("node 1 gets no jobs: n2: no scratch",)
    status = edge_status(books.look())
    assert status.allocations[0].complaints == "node 1 gets no jobs: n2: no scratch"
    assert status.allocations[0].cores == 4, "packs that have ended have none"
    assert (status.tasks[0].waiting, status.tasks[0].in_work, status.tasks[0].running) == (10, 10, 4)


def test_a_pack_of_which_nothing_is_heard(books: Books) -> None:
    """What it was given."""
    books.task(small_task(), leased=10)
    books.allocation(held=10)
    (allocation,) = explained(books).allocations
    assert allocation.state == "queued, for 1 min 30 s now"
    assert allocation.packs[0].does == ("task 1 'sand': has 10 events, not begun",)


def test_of_one_task_only_its_allocations_are_shown(books: Books) -> None:
    """And a task that is not here is refused with another place to ask."""
    books.task(small_task(), leased=10)
    books.allocation(held=10)
    assert len(explain(books.look(), 1).allocations) == 1
    with pytest.raises(NotFound, match="hpcpanda task explain 2"):
        explain(books.look(), 2)


@pytest.mark.parametrize(
    ("running", "age_s", "says"),
    [
        (False, 0.0, "No edge runs over this spool"),
        (True, STALE_S + 1, "has not said lately"),
        (True, 1.0, "Nothing is known of backfill windows: a laptop has no queue."),
    ],
)
def test_what_is_not_known_is_said(books: Books, running: bool, age_s: float, says: str) -> None:
    """Whether the edge runs, and what it knows of windows."""
    books.outlook = replace(books.outlook, written=NOW - age_s)
    assert says in explained(books, running=running).notes[0]


def test_windows_are_as_old_as_the_word_of_them(books: Books) -> None:
    """A window that was seen 20 s ago is 20 s shorter; one that is over is none."""
    windows = (
        BackfillWindow(queue=None, nodes=2, seconds=10),
        BackfillWindow(queue=None, nodes=1, seconds=50),
    )
    books.outlook = replace(books.outlook, written=NOW - 20, windows=windows)
    assert books.look().situation.windows == (BackfillWindow(queue=None, nodes=1, seconds=30),)


def test_a_broken_outlook_is_as_good_as_none(books: Books) -> None:
    """It is only of the moment."""
    books.folder.outlook.write_text("{")
    assert look(books.site, books.store, running=True, now=NOW).outlook is None


def test_a_pack_that_makes_place_is_told_of_by_both_tasks(
    books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    """For whom, as data and in words; whoever waits for it is told so, too."""
    books.task(small_task(), leased=10)
    books.allocation(held=10, state=AllocationState.RUNNING, started=NOW - 50, nodes=1)
    books.said(TaskProgress(task_id=1, done=5, waiting=7))
    urgent = LeaseGrant(
        task_id=2, epoch=1, events=IntervalSet.span(0, 3), spec=small_task(3), expires_in_s=9.0
    )
    with books.store.transaction():
        accounts.take_grants(books.store, Grants(leases=(urgent,)))
        record = books.store.allocations[HERE]
        ending = replace(record.packs[0], draining=True, gives_way_to=2)
        waits = PackRecord(pack_id="p2", kind="work", nodes=1, parts=(PartRecord(task_id=2),))
        books.store.allocations.put(replace(record, packs=(ending, waits)))
        accounts.hand_out(books.store, 2, f"{HERE}-p2", 3)
    explanation = explain(books.look())
    first, second = explanation.tasks
    assert first.why.endswith(" A pack makes place for task 2 when what it has begun is finished.")
    assert second.why == (
        "3 events of it are in pack p2 of allocation a1, which starts when pack p1 has finished what it has begun."
    )
    assert [p.gives_way_to for p in explanation.allocations[0].packs] == [2, None]
    show_text(explanation)
    assert (
        "pack p1 on 1 node, finishing what it has begun, to make place for task 2" in capsys.readouterr().out
    )
