"""What is merged when, of tasks with one file and with several; every event is in one file, whatever was lost between."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.filling import Filling
from hpcpanda_edge.merge_work import due_merge, merge_pack, outputs_of
from hpcpanda_edge.records import AllocationRecord, OutputState, PackRecord, PartRecord
from hpcpanda_edge.reporting import apply_reply, make_report
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import situation
from support.edge import small_site
from support.edge_books import accept, entries, fresh

from hpcpanda.allocation.plan import MergedFile, PackStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import SyncReply
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskState

NOW = 100.0


class Merging:
    """An edge's memory with a task of 100 events, which a pack works on."""

    def __init__(self, folder: Path, *, most: int | None) -> None:
        self.spool, self.site = Spool(folder), small_site(folder)
        self.store = fresh(folder / "edge.sqlite")
        self.steps = Steps(self.store, self.spool, self.site)
        self.packs = 0
        task = self.store.tasks[1]
        output = replace(task.spec.output, max_events=most)
        with self.store.transaction():
            self.store.tasks.put(replace(task, spec=replace(task.spec, output=output)))

    def finish(self, *ranges: tuple[int, int]) -> None:
        """Events are finished, and the dispatcher has recorded them."""
        accept(self.store, entries(*ranges))
        done = IntervalSet.of(r for first, last in ranges for r in IntervalSet.span(first, last).ranges())
        with self.store.transaction():
            accounts.acknowledge(self.store, (1, 7), done, IntervalSet())
            for number in list(self.store.commits):
                self.store.commits.drop(number)

    def settle(self) -> None:
        """The dispatcher says that the task is to be merged."""
        with self.store.transaction():
            self.store.tasks.put(replace(self.store.tasks[1], state=TaskState.MERGING))

    @property
    def mergeable(self) -> bool:
        (view,) = situation(self.store, {}, site=self.site, now=NOW).tasks
        return view.mergeable

    def begin(self) -> IntervalSet:
        """Start a merge pack; gives the events that it is given."""
        assert self.mergeable
        self.packs += 1
        record = PackRecord(pack_id="p1", kind="merge", nodes=1, parts=(PartRecord(task_id=1),))
        allocation = AllocationRecord(
            allocation_id=f"m{self.packs}", nodes=1, walltime_s=60, packs=(record,), created=0.0
        )
        with self.store.transaction():
            self.store.allocations.put(allocation)
            pack = Filling(self.store, self.spool, self.site, {}).merge(1, "p1", 1)
        assert pack is not None
        return IntervalSet.of(r for a in pack.accepted for r in a.events.ranges())  # type: ignore[union-attr]

    def end(self, *files: IntervalSet, status: PackStatus | None = None) -> None:
        """The pack has ended with these files, or with that word."""
        made = tuple(
            MergedFile(path=f"/out/{f.bounds[0]}", manifest=f"/out/{f.bounds[0]}.json", digest="sha256:0", size=1, events=f)
            for f in files
        )  # fmt: skip
        if files:
            status = PackStatus(pack_id="p1", state="ended", files=made)
        with self.store.transaction():
            self.steps.settle(f"m{self.packs}", "p1", 1, status, NOW, late=False)

    @property
    def merged(self) -> list[IntervalSet]:
        return [record.file.events for record in outputs_of(self.store, 1)]


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Merging]:
    """A task with a file for every 20 events."""
    merging = Merging(tmp_path, most=20)
    yield merging
    merging.store.close()


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Merging]:
    """A task with one file."""
    merging = Merging(tmp_path, most=None)
    yield merging
    merging.store.close()


def test_one_file_is_merged_when_all_is_settled(single: Merging) -> None:
    """Not before, however much there is; and then nothing more."""
    single.finish((0, 90))
    assert not single.mergeable
    single.settle()
    assert single.begin() == IntervalSet.span(0, 90)
    single.end(IntervalSet.span(0, 90))
    assert single.merged == [IntervalSet.span(0, 90)]
    assert not single.mergeable
    (view,) = situation(single.store, {}, site=single.site, now=NOW).tasks
    assert view.merged


def test_several_files_are_merged_while_the_task_runs(several: Merging) -> None:
    """As soon as there is enough for one that is in none; the rest at the end."""
    several.finish((0, 10), (40, 49))
    assert not several.mergeable
    several.finish((10, 15))
    assert several.begin() == IntervalSet((0, 15, 40, 49))
    several.end(IntervalSet((0, 15)))
    assert not several.mergeable
    several.finish((15, 40), (50, 80))
    assert several.begin() == IntervalSet((15, 49, 50, 80))
    several.end(IntervalSet((15, 35)), IntervalSet((35, 49, 50, 55)))
    several.finish((49, 50), (80, 100))
    several.settle()
    assert several.begin() == IntervalSet((49, 50, 55, 100))
    several.end(IntervalSet((49, 50, 55, 74)), IntervalSet((74, 100)))
    assert sum(map(len, several.merged)) == 100
    assert not several.mergeable


@pytest.mark.parametrize("last_word", [None, PackStatus(pack_id="p1", state="running"), "killed", "failed"])
def test_a_merge_that_was_lost_is_done_again_as_it_was(
    several: Merging, last_word: PackStatus | str | None
) -> None:
    """With the very same events, although there are more by now: what it may have written is found, or written alike."""
    if last_word == "killed":
        last_word = PackStatus(pack_id="p1", state="ended", error="the pack died", died="SIGKILL")
    elif last_word == "failed":
        last_word = PackStatus(pack_id="p1", state="ended", error="no space left")
    several.finish((20, 45))
    first = several.begin()
    several.finish((0, 20), (45, 100))
    several.end(status=last_word)  # type: ignore[arg-type]
    several.settle()
    assert several.begin() == first == IntervalSet.span(20, 45)
    several.end(IntervalSet((20, 40)))
    assert several.begin() == IntervalSet((0, 20, 40, 100))


def test_a_restart_knows_what_was_being_merged(several: Merging) -> None:
    """The order is on the disk before the merge can begin."""
    several.finish((0, 25))
    several.begin()
    several.store.close()
    again = Store(several.spool.path / "edge.sqlite")
    assert again.tasks[1].merge == several.store.tasks[1].merge is not None
    assert due_merge(again, again.tasks[1]) == again.tasks[1].merge
    again.close()


@pytest.mark.parametrize(
    "files",
    [
        [IntervalSet((0, 20)), IntervalSet((19, 25))],
        [IntervalSet((0, 26))],
        [IntervalSet((50, 60))],
    ],
)
def test_files_with_other_events_than_ordered_are_not_taken(
    several: Merging, files: list[IntervalSet]
) -> None:
    """It counts as a merge that failed."""
    several.finish((0, 25))
    several.begin()
    several.end(*files)
    assert several.merged == []
    assert several.store.tasks[1].merges_failed == 1


def test_a_merge_of_all_that_leaves_something_out_is_not_taken(single: Merging) -> None:
    """However it came about."""
    single.finish((0, 25))
    single.settle()
    single.begin()
    single.end(IntervalSet((0, 20)))
    assert (single.merged, single.store.tasks[1].merges_failed) == ([], 1)


def test_each_file_is_told_and_answered_by_itself(several: Merging) -> None:
    """While the task runs and has commits open; a file that is refused is the task's fault here, the others stand."""
    several.finish((0, 25), (30, 60))
    several.begin()
    several.end(IntervalSet((0, 20)), IntervalSet((20, 25, 30, 45)))
    accept(several.store, entries((70, 75)))
    assert make_report(several.store, {}, instance="i").request.outputs == ()
    with several.store.transaction():
        for record in outputs_of(several.store, 1):
            several.store.outputs.put(replace(record, state=OutputState.MOVED))
    report = make_report(several.store, {}, instance="i")
    assert [o.path for o in report.request.outputs] == ["/out/0", "/out/20"]
    assert report.urgent
    reply = SyncReply(commits=(), rejected_outputs=("/out/20",))
    with several.store.transaction():
        apply_reply(several.store, several.steps, replace(report, numbers=()), reply)
    (record,) = outputs_of(several.store, 1)
    assert (record.file.path, record.state) == ("/out/0", OutputState.RECORDED)
    assert several.store.tasks[1].fault == "the dispatcher refused the merged file /out/20"
    assert make_report(several.store, {}, instance="i").request.outputs == ()


def test_the_pack_has_only_what_it_is_to_merge(several: Merging) -> None:
    """Journals without any of it are not named, and failed events are told with the last file only."""
    several.finish((0, 25), (30, 60))
    order = due_merge(several.store, several.store.tasks[1])
    assert order is not None
    part = replace(order, events=IntervalSet((30, 60)))
    pack = merge_pack(several.store, several.spool, several.store.tasks[1], part, pack_id="p", site="here")
    assert [a.events for a in pack.accepted] == [IntervalSet((30, 60))]
    assert (pack.rest, pack.failed) == (False, IntervalSet())
    nothing = replace(order, events=IntervalSet((90, 99)))
    task = several.store.tasks[1]
    assert merge_pack(several.store, several.spool, task, nothing, pack_id="p", site="h").accepted == ()


OLD_FILE = {
    "task_id": 1, "path": "/out/1.h5", "manifest": "/out/1.json", "events": {"bounds": [3, 9]}, "digest": "sha256:0",
    "size": 5,
}  # fmt: skip


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("state", ["none", "made", "moved", "recorded"])
def test_a_memory_of_the_first_format_is_taken_over(tmp_path: Path, state: str, read_only: bool) -> None:
    """A merged file is still known, and how far it was; who only looks changes nothing."""
    path = tmp_path / "edge.sqlite"
    fresh(path).close()
    old = sqlite3.connect(path, isolation_level=None)
    ((key, body),) = old.execute("SELECT key, body FROM tasks").fetchall()
    task = json.loads(body)
    del task["merge"]
    task |= {"output": None if state == "none" else OLD_FILE, "output_state": state}
    old.execute("UPDATE tasks SET body = ? WHERE key = ?", (json.dumps(task).encode(), key))
    old.execute("DROP TABLE outputs")
    old.execute("PRAGMA user_version = 1")
    old.close()
    before = path.read_bytes()
    store = Store(path, read_only=read_only)
    found = [(r.key, r.file.path, r.state.value) for r in outputs_of(store, 1)]
    assert found == ([] if state == "none" else [((1, 3), "/out/1.h5", state)])
    assert store.tasks[1].merge is None
    store.close()
    if read_only:
        assert path.read_bytes() == before
    else:
        again = Store(path)
        assert [r.file.path for r in outputs_of(again, 1)] == [path for _, path, _ in found]
        again.close()
