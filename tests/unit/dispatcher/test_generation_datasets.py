"""Datasets that are cut into jobs: jobs go where their files are, and are told the paths that these have there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.datasets import DID, DataBench, file, reading
from unit.dispatcher.test_jobs import ROOM

from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import LeaseReturn
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.task import Resources, TaskSpec


def cutting(split: JobSplit, **fields: object) -> TaskSpec:
    """A task of jobs that read the dataset."""
    return reading(
        payload=JobPayload(command=("true",)),
        job=JobRequest(walltime_s=100.0),
        split=split,
        resources=Resources(),
        **fields,
    )


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[DataBench]:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    bench = DataBench(database)
    await bench.register("a", "b")
    yield bench
    await database.close()


async def test_jobs_go_where_their_files_are(data: DataBench) -> None:
    """Files at one of two sites or at both: each site is given the jobs all of whose files it has, told by its paths."""
    sites = (("a",), ("a",), ("b",), ("a", "b"))
    await data.fill(*(file(n, *sites[n % 4]) for n in range(8)))
    task = await data.submit(cutting(JobSplit(files_per_job=1)))
    assert task.progress.total == 8
    (grant,) = await data.acquire("a", events=10_000, room=ROOM)
    at_a = {n for n in range(8) if n % 4 < 2 or n % 4 == 3}
    assert {one.job for one in grant.slices} == at_a
    assert {f.path for one in grant.slices for f in one.files} == {f"/a/f{n}.root" for n in at_a}
    assert grant.spec.inputs is None
    assert not await data.acquire("a", events=10_000, room=ROOM)
    (other,) = await data.acquire("b", events=10_000, room=ROOM)
    assert [f.path for one in other.slices for f in one.files] == ["/b/f2.root", "/b/f6.root"]


async def test_jobs_of_events_need_all_their_files_at_the_site(data: DataBench) -> None:
    """A job over two files, of which one is elsewhere, waits for a copy; it is leased when there is one."""
    await data.fill(file(0, "a"), file(1, "b"), file(2, "a"))
    task = await data.submit(cutting(JobSplit(events_per_job=10)))
    assert task.progress.total == 3
    wide = await data.submit(cutting(JobSplit(events_per_job=15), name="wide"))
    (grant,) = await data.acquire("a", events=10_000, room=ROOM)
    assert (grant.task_id, grant.events) == (task.task_id, IntervalSet((0, 1, 2, 3)))
    await data.add(file(1, "a"))
    leases = await data.acquire("a", events=10_000, room=ROOM)
    assert {g.task_id: len(g.events) for g in leases} == {task.task_id: 1, wide.task_id: 2}
    (told,) = (g.slices for g in leases if g.task_id == wide.task_id)
    assert [[(f.path, f.first, f.last) for f in one.files] for one in told] == [
        [("/a/f0.root", 0, 10), ("/a/f1.root", 0, 5)],
        [("/a/f1.root", 5, 10), ("/a/f2.root", 0, 10)],
    ]


async def test_a_lease_that_comes_back_is_leased_again(data: DataBench) -> None:
    """What was taken out of the middle of the ready jobs goes back there: no job is lost, none is there twice."""
    await data.fill(*(file(n, *(("a", "b") if n % 3 else ("b",))) for n in range(30)))
    task = await data.submit(cutting(JobSplit(max_bytes=250)))
    total = task.progress.total
    (grant,) = await data.acquire("b", events=10_000, room=ROOM)
    assert len(grant.events) == total == 15
    back = LeaseReturn(task_id=task.task_id, epoch=grant.epoch, events=IntervalSet((3, 9)))
    await data.sync("b", returns=(back,))
    (again,) = await data.acquire("b", events=10_000, room=ROOM)
    assert again.events == IntervalSet((3, 9))
    assert again.slices == grant.slices[3:9]


async def test_a_dataset_is_cut_by_bytes_or_refused(data: DataBench) -> None:
    """The sizes are the catalogue's; a file that is too large is named by its place."""
    await data.fill(file(0, "a", size=50), file(1, "a", size=300))
    with pytest.raises(InvalidValue, match="is less than the 300 bytes of file 1 of the dataset"):
        await data.submit(cutting(JobSplit(max_bytes=299)))
    assert (await data.submit(cutting(JobSplit(max_bytes=349)))).progress.total == 2
    assert (await data.submit(cutting(JobSplit(max_bytes=350)))).progress.total == 1
    assert str(DID) == "user.ada:data.v1"
