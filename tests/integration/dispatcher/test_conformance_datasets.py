"""Datasets over both kinds of database: adding files, leasing their events where they are, registering outputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import event
from support.datasets import DID, DataBench, file, principal, reading
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.dispatcher.identity.scopes import TokenKind
from hpcpanda.dispatcher.retrying import again_on_contention
from hpcpanda.dispatcher.store.catalogue_windows import PORTION
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.usecases import reading as lease_rules
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.tasks import get_task
from hpcpanda.domain.dataset import Provenance, SiteShare
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import Conflict, Forbidden, IllegalTransition, InvalidValue, NotFound
from hpcpanda.domain.inputs import InputFile
from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet
from hpcpanda.domain.outputs import Output, OutputFormat

OUT = Did("user.ada", "out.v1")


@pytest.fixture(params=["sqlite", "postgres"])
async def data(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DataBench]:
    database: Database
    if request.param == "sqlite":
        database = SqliteDatabase(tmp_path / "db.sqlite")
        await database.migrate()
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = PostgresDatabase(server.create_database(TEMPLATE), connections=4)
    bench = DataBench(database)
    await bench.register("a", "b")
    yield bench
    await database.close()


async def test_files_keep_their_place(data: DataBench) -> None:
    """Files are numbered in the order in which they came, and each begins where those before end."""
    await data.create()
    assert (await data.add(file(0, "a"), file(1, "a", "b", events=5))).added == 2
    told = await data.add(file(2, events=7, clusters=(2, 5), checksum="adler32:0a0b0c0d", meta={"run": 3}))
    assert (told.added, told.known, told.dataset.files, told.dataset.events, told.dataset.size) == (
        1,
        0,
        3,
        22,
        300,
    )
    files = await data.files(limit=2)
    assert [(f.ordinal, f.first, f.file.name) for f in files] == [
        (0, 0, "f0.root"),
        (1, 10, "f1.root"),
        (2, 15, "f2.root"),
    ]
    assert [len(f.file.replicas) for f in files] == [1, 2, 0]
    assert (files[2].file.clusters, files[2].file.meta) == ((2, 5), {"run": 3})
    shown = await data.dataset()
    assert shown.sites == (SiteShare(site="a", files=2, size=200), SiteShare(site="b", files=1, size=100))


async def test_files_added_again_change_nothing(data: DataBench) -> None:
    """Also when some are new, or when only copies are; another file of the same name is refused and nothing is added."""
    await data.create()
    await data.add(file(0, "a"), file(1, "a"))
    before = await data.dataset()
    again = await data.add(file(0, "a"), file(1, "a"), file(1, "a"))
    assert (again.added, again.known) == (0, 3)
    assert await data.dataset() == before
    told = await data.add(file(1, "b"), file(2, "a"), file(2, "b"))
    assert (told.added, told.known) == (1, 2)
    assert [s.files for s in (await data.dataset()).sites] == [3, 2]
    for other in (file(1, events=11), file(1, size=101)):
        with pytest.raises(
            Conflict, match=r"user.ada:data.v1 has another file f1.root: .*give the new one another name"
        ):
            await data.add(file(9, "a"), other)
    await data.add(file(5, checksum="adler32:00000001"))
    with pytest.raises(Conflict, match="checksum"):
        await data.add(file(5, checksum="adler32:00000002"))
    assert [f.file.name for f in await data.files()] == ["f0.root", "f1.root", "f2.root", "f5.root"]


async def test_a_closed_dataset_stays_as_it_is(data: DataBench) -> None:
    """No new file, but a repeated message is answered as at first, and copies may still be told of."""
    await data.fill(file(0, "a"))
    assert not (await data.close()).open
    assert (await data.add(file(0, "a", "b"))).known == 1
    assert [s.site for s in (await data.dataset()).sites] == ["a", "b"]
    with pytest.raises(IllegalTransition, match=r"closed, and f1\.root is not in it"):
        await data.add(file(1, "a"))


async def test_only_the_owner_changes_a_dataset(data: DataBench) -> None:
    """And administrators."""
    await data.create()
    eve = principal("eve")
    with pytest.raises(Forbidden, match="belongs to ada"):
        await data.add(file(0), caller=eve)
    with pytest.raises(Forbidden, match="belongs to ada"):
        await data.close(caller=eve)
    assert (await data.create()).did == "user.ada:data.v1"
    with pytest.raises(Conflict, match="of ada already"):
        await data.create(owner="eve")
    await data.add(file(0), caller=principal("root", TokenKind.ADMIN))
    with pytest.raises(NotFound, match=r"there is no dataset user\.ada:other"):
        await data.add(file(0), did=Did("user.ada", "other"))


async def test_two_that_add_at_once_share_no_place(data: DataBench) -> None:
    """Every file has an ordinal of its own and begins where the one before ends."""
    await data.create()
    await asyncio.gather(
        *(
            again_on_contention(
                lambda n=n: data.add(*(file(n * 10 + i, "a", events=1 + i) for i in range(5)))
            )
            for n in range(6)
        )  # type: ignore[misc]
    )
    files = await data.files()
    assert [f.ordinal for f in files] == list(range(30))
    assert [f.first for f in files] == [0, *(f.last for f in files[:-1])]
    shown = await data.dataset()
    assert (shown.files, shown.events, shown.sites[0].files) == (30, files[-1].last, 30)


async def test_a_lease_tells_the_files_it_needs(data: DataBench) -> None:
    """Those that hold its events, by their paths at the site that asks, and no others; the stored specification names
    the dataset only."""
    await data.fill(*(file(n, "a", "b", clusters=(4,)) for n in range(5)))
    task = await data.submit(reading())
    assert task.progress.total == 50
    (grant,) = await data.acquire("b", 25)
    assert grant.events == IntervalSet.span(0, 25)
    assert grant.spec.inputs is not None
    assert [(f.path, f.first, f.events, f.clusters, f.size) for f in grant.spec.inputs.files] == [
        ("/b/f0.root", 0, 10, (4,), 100),
        ("/b/f1.root", 10, 10, (4,), 100),
        ("/b/f2.root", 20, 10, (4,), 100),
    ]
    (grant,) = await data.acquire("a", 20)
    assert grant.spec.inputs is not None
    assert [(f.path, f.first) for f in grant.spec.inputs.files] == [
        ("/a/f2.root", 20),
        ("/a/f3.root", 30),
        ("/a/f4.root", 40),
    ]
    seen = await get_task(data.store.reading(), task_id=task.task_id, now=data.now)
    assert seen.spec == reading()


async def test_events_are_leased_where_their_files_are(data: DataBench) -> None:
    """A site is given only events whose files it has, each event once; what nobody has stays ready, and that is said."""
    homes = Random(7).choices((("a",), ("b",), ("a", "b"), ()), k=40)
    await data.fill(*(file(n, *sites) for n, sites in enumerate(homes)))
    task = await data.submit(reading())
    data.now += 1000.0  # long enough for brokerage to leave it to nobody
    got = {"a": EMPTY, "b": EMPTY}
    while any([await lease_some(data, got, edge) for edge in ("a", "b")]):
        pass
    assert not got["a"] & got["b"]
    for edge, events in got.items():
        here = IntervalSet.of(
            EventRange(n * 10, n * 10 + 10) for n, sites in enumerate(homes) if edge in sites
        )
        assert events.issubset(here)
    everywhere = IntervalSet.of(EventRange(n * 10, n * 10 + 10) for n, sites in enumerate(homes) if sites)
    assert got["a"] | got["b"] == everywhere
    async with data.store.reading() as uow:
        assert await uow.ready.all_of(task.task_id) == IntervalSet.span(0, 400) - everywhere
    told = await explain_task(data.store.reading(), task_id=task.task_id, terms=data.terms, now=data.now)
    assert {said.why.code for said in told.brokerage} == {"no-data"}


async def lease_some(data: DataBench, got: dict[str, IntervalSet], edge: str) -> bool:
    found = False
    for grant in await data.acquire(edge, 33):
        assert grant.spec.inputs is not None
        files = grant.spec.inputs.files
        covered = IntervalSet.of(EventRange(f.first or 0, (f.first or 0) + f.events) for f in files)
        assert grant.events.issubset(covered)
        assert all(grant.events.overlaps(f.first or 0, (f.first or 0) + f.events) for f in files)
        assert all(f.path.startswith(f"/{edge}/") for f in files)
        got[edge] |= grant.events
        found = True
    return found


async def test_a_lease_carries_a_bounded_number_of_files(
    data: DataBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many events are asked for, and however large the lists of their clusters."""
    monkeypatch.setattr(lease_rules, "MAX_FILES", 7)
    await data.fill(*(file(n, "a", events=1) for n in range(20)))
    await data.submit(reading())
    assert [len(g.events) for g in await data.acquire("a", 1000)] == [7]
    monkeypatch.setattr(lease_rules, "MAX_FILES", 100)
    monkeypatch.setattr(lease_rules, "MAX_WEIGHT", 50)
    other = Did("s", "clusters")
    await data.fill(*(file(n, "a", events=50, clusters=tuple(range(1, 10))) for n in range(9)), did=other)
    task = await data.submit(reading(other))
    (grant,) = await data.acquire("a", 1000, task_id=task.task_id)
    assert grant.events == IntervalSet.span(0, 100)


async def test_files_far_behind_are_found_at_once(data: DataBench) -> None:
    """A site that has only the last of very many files is given their events with few statements."""
    files = [file(n, "b" if n < 3 * PORTION else "a", events=2) for n in range(3 * PORTION + 3)]
    await data.fill(*files)
    await data.submit(reading())
    data.now += 1000.0
    statements: list[str] = []
    event.listen(
        data.database.engine.sync_engine, "before_cursor_execute", lambda _c, _r, s, *_: statements.append(s)
    )
    (grant,) = await data.acquire("a", 100)
    assert grant.events == IntervalSet.span(6 * PORTION, 6 * PORTION + 6)
    assert len([s for s in statements if s.startswith("SELECT")]) < 20


async def test_what_cannot_be_read_is_refused(data: DataBench) -> None:
    """At submission, with what to do."""
    with pytest.raises(
        InvalidValue, match=r"inputs.dataset: there is no dataset user.ada:data.v1; 'hpcpanda dataset create'"
    ):
        await data.submit(reading())
    await data.create()
    await data.add(file(0, "a"))
    with pytest.raises(InvalidValue, match="is open, files may still come"):
        await data.submit(reading())
    await data.create(OUT)
    await data.close(OUT)
    with pytest.raises(InvalidValue, match="has no files"):
        await data.submit(reading(OUT))
    await data.close()
    spec = reading()
    assert spec.inputs is not None
    for chosen in ({"files": (InputFile(path="/f", events=1),)}, {"listing": "/etc/passwd"}):
        from dataclasses import replace

        with pytest.raises(InvalidValue, match="leave out one of the two"):
            await data.submit(replace(spec, inputs=replace(spec.inputs, **chosen)))


async def test_a_task_is_submitted_once(data: DataBench) -> None:
    """The same key gives the same task again, also of a dataset."""
    await data.fill(file(0, "a"))
    first = await data.submit(reading(writes=OUT), key="k")
    assert (await data.submit(reading(writes=OUT), key="k")).task_id == first.task_id
    assert [w.task_id for w in (await data.dataset(OUT)).provenance] == [first.task_id]


async def test_outputs_become_files_of_a_dataset(data: DataBench) -> None:
    """Each once, with where it came from, and the dataset is closed when the task has ended well."""
    await data.fill(file(0, "a", "b"))
    task = await data.submit(reading(writes=OUT))
    assert (await data.dataset(OUT)).open
    (one,) = await data.acquire("a", 6)
    (two,) = await data.acquire("b", 10)
    await data.finish("a", one)
    await data.finish("b", two)
    for _ in range(2):
        await data.report("a", task.task_id, one.events, "/a/out/out.zip")
    assert (await data.dataset(OUT)).open
    await data.report("b", task.task_id, two.events, "/b/out/out.zip")
    shown = await data.dataset(OUT)
    assert (shown.open, shown.owner, shown.files, shown.events) == (False, "ada", 2, 10)
    (writer,) = shown.provenance
    assert writer == Provenance(task_id=task.task_id, spec_digest=writer.spec_digest, source=str(DID))
    files = await data.files(OUT)
    assert [(f.file.name, f.first, f.file.events, f.task_id) for f in files] == [
        (f"task{task.task_id}.a.out.zip", 0, 6, task.task_id),
        (f"task{task.task_id}.b.out.zip", 6, 4, task.task_id),
    ]
    assert [(r.site, r.path) for f in files for r in f.file.replicas] == [
        ("a", "/a/out/out.zip"),
        ("b", "/b/out/out.zip"),
    ]
    # and it can be read in its turn
    reader = await data.submit(reading(OUT, writes=Did("user.ada", "third")))
    assert reader.progress.total == 10


async def test_paths_of_outputs_name_no_file_twice(data: DataBench) -> None:
    """Whatever an edge calls its files, their names in a dataset are names, and differ."""
    await data.fill(file(0, "a"))
    task = await data.submit(reading(writes=OUT))
    (grant,) = await data.acquire("a", 10)
    await data.finish("a", grant)
    for n, path in enumerate(
        ("/x/out.zip", "/y/out.zip", "/z/a b'; DROP TABLE.zip", "/z/..zip", f"/{'n' * 300}")
    ):
        part = IntervalSet.span(2 * n, 2 * n + 2)
        assert (await data.report("a", task.task_id, part, path)).rejected_outputs == ()
    files = await data.files(OUT)
    assert len({f.file.name for f in files}) == 5
    assert [len(f.file.replicas) for f in files] == [1] * 5
    assert not (await data.dataset(OUT)).open


async def test_a_dataset_is_closed_by_the_last_that_writes_it(data: DataBench) -> None:
    """Not while another task still writes it; and what its owner closes by hand takes no more, which harms no task."""
    await data.fill(file(0, "a"))
    tasks = [await data.submit(reading(writes=OUT)) for _ in range(2)]
    for number, task in enumerate(tasks):
        (grant,) = await data.acquire("a", 10, task_id=task.task_id)
        await data.finish("a", grant)
        await data.report("a", task.task_id, grant.events, f"/a/{number}.zip")
        assert (await data.dataset(OUT)).open is (number == 0)
    third = Did("user.ada", "third")
    task = await data.submit(reading(writes=third))
    (grant,) = await data.acquire("a", 10, task_id=task.task_id)
    await data.finish("a", grant)
    await data.close(third)
    await data.report("a", task.task_id, grant.events, "/a/x.zip")
    seen = await get_task(data.store.reading(), task_id=task.task_id, now=data.now)
    assert (seen.state, (await data.dataset(third)).files) == ("done", 0)


async def test_what_cannot_be_written_is_refused(data: DataBench) -> None:
    """A dataset of somebody else, a closed one, and the one that is read."""
    await data.fill(file(0, "a"))
    with pytest.raises(InvalidValue, match="is what the task reads"):
        await data.submit(reading(writes=DID))
    await data.create(OUT, owner="eve")
    with pytest.raises(Forbidden, match="belongs to eve"):
        await data.submit(reading(writes=OUT))
    shut = Did("user.ada", "shut")
    await data.create(shut)
    await data.close(shut)
    with pytest.raises(InvalidValue, match="is closed, no more files come"):
        await data.submit(reading(writes=shut))
    output = Output(file="o.zip", format=OutputFormat.ZIP, dataset=str(shut))
    with pytest.raises(InvalidValue, match="closed"):
        await data.submit(reading(output=output))


async def test_work_goes_where_its_data_are(data: DataBench) -> None:
    """A site with one of twenty files leaves the task to one that has all and asks too; after a while it may have its
    part."""
    files = [file(n, "a", *(("b",) if n == 0 else ()), size=10**10) for n in range(20)]
    await data.fill(*files)
    filler = await data.submit(reading(), owner="bob")
    (first,) = await data.acquire("a", 1, task_id=filler.task_id)
    assert first.events
    await data.acquire("a", 10_000, task_id=10**6)  # asks for what is not there: it is hungry
    task = await data.submit(reading())
    assert await data.acquire("b", 10, task_id=task.task_id) == ()
    told = await explain_task(data.store.reading(), task_id=task.task_id, terms=data.terms, now=data.now)
    assert [(said.edge, said.why.code) for said in told.brokerage] == [("b", "better-site")]
    data.now += 300.0
    (grant,) = await data.acquire("b", 100, task_id=task.task_id)
    assert grant.events == IntervalSet.span(0, 10)
