"""Files of datasets at the edge: what is told with leases is put together, and dropped when nobody needs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcpanda_edge.accounts import take_grants
from hpcpanda_edge.input_files import listing, with_files_of, write_listing
from hpcpanda_edge.staging.book import Retry
from hpcpanda_edge.staging.places import sources, staged_spec
from hpcpanda_edge.staging.work import Inputs as StagedInputs
from hpcpanda_edge.store import Store

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import Grants, LeaseGrant
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import EventLedger
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.task import Staging, TaskSpec
from hpcpanda.payload.listing import load_listing

SPOOL = Spool(Path("/spool"))


def file(number: int) -> InputFile:
    return InputFile(path=f"/data/f{number}.root", events=10, first=10 * number)


def spec(*numbers: int, staging: str = "in-place", seed: int = 1) -> TaskSpec:
    return TaskSpec(
        name="t",
        payload=CommandPayload(command=("cp", "{input}", "{output}")),
        output=Output(file="o.zip", format=OutputFormat.ZIP),
        inputs=Inputs(
            format=InputFormat.ROOT, container="t", dataset="s:data", files=tuple(map(file, numbers))
        ),
        staging=Staging(inputs=staging),  # type: ignore[arg-type]
        seed=seed,
    )


def numbers(task: TaskSpec) -> list[int]:
    assert task.inputs is not None
    return [(f.first or 0) // 10 for f in task.inputs.files]


def grant(epoch: int, first: int, last: int, *files: int, seed: int = 1) -> Grants:
    events = IntervalSet.span(first, last)
    lease = LeaseGrant(
        task_id=7, epoch=epoch, events=events, spec=spec(*files, seed=seed), expires_in_s=100.0
    )
    return Grants(leases=(lease,))


def test_files_are_put_together() -> None:
    """In the order of events; of what is told twice the newer counts, and what no event needs is dropped."""
    told = spec(1, 3)
    assert told.inputs is not None
    moved = replace(told.inputs.files[0], path="/elsewhere")
    told = replace(told, seed=2, inputs=replace(told.inputs, files=(moved, told.inputs.files[1])))
    merged = with_files_of(spec(0, 1, 2, 5), told, IntervalSet((5, 25, 30, 31)))
    assert numbers(merged) == [0, 1, 2, 3]
    assert merged.inputs is not None
    assert (merged.inputs.files[1].path, merged.seed) == ("/elsewhere", 2)
    assert numbers(with_files_of(None, spec(4), IntervalSet.span(40, 41))) == [4]


def test_leases_keep_the_files_that_they_need(tmp_path: Path) -> None:
    """Each lease brings its files; those of finished events go with the next lease; all else is told newest."""
    store = Store(tmp_path / "edge.sqlite")
    with store.transaction():
        take_grants(store, grant(1, 0, 25, 0, 1, 2))
        take_grants(store, grant(2, 60, 70, 6, seed=2))
    assert (numbers(store.tasks[7].spec), store.tasks[7].spec.seed) == ([0, 1, 2, 6], 2)
    with store.transaction():
        lease = store.leases[7, 1]
        ledger = EventLedger.over(IntervalSet.span(0, 25))
        given = ledger.grant(holder="p", limit=18, expires=1e18)
        assert given is not None
        ledger.commit(given.epoch, holder="p", done=IntervalSet.span(0, 18))
        store.leases.put(replace(lease, ledger=ledger))
        take_grants(store, grant(3, 80, 90, 8))
    assert numbers(store.tasks[7].spec) == [1, 2, 6, 8]
    with store.transaction():
        take_grants(store, grant(1, 0, 25, 0, 1, 2))
    store.close()


def test_files_are_listed_for_workers(tmp_path: Path) -> None:
    """Before events of them are handed out; by the paths under which workers find them."""
    spool = Spool(tmp_path)
    for staging, path in (
        ("in-place", "/data/f3.root"),
        ("copy", str(tmp_path / "tasks/7/input/e30/f3.root")),
    ):
        staged = staged_spec(spec(3, staging=staging), spool, 7)
        write_listing(staged)
        assert [f.path for f in load_listing(listing(spool, 7))] == [path]
        assert staged.inputs is not None
        assert staged.inputs.listing == str(listing(spool, 7))
    inline = replace(spec(3), inputs=Inputs(format=InputFormat.LHE, files=(InputFile(path="/x", events=3),)))
    staged = staged_spec(inline, spool, 8)
    assert staged == inline
    write_listing(staged)
    assert not listing(spool, 8).exists()


def test_copies_keep_their_places() -> None:
    """Whichever other files are known, a file of a dataset is copied to the same place, and covers the same events."""
    few, many = sources(spec(3, staging="copy")), sources(spec(1, 3, staging="copy"))
    folder = Path("/spool/tasks/7/input")
    assert few[0].copy(folder, 30) == many[1].copy(folder, 30) == folder / "e30/f3.root"
    assert (few[0].cover.first, few[0].cover.last) == (30, 40)


def test_staging_learns_of_files_that_come(tmp_path: Path) -> None:
    """Those that came later are copied too, once; what is known of the others stays."""
    from hpcpanda_edge.staging import inward

    work = StagedInputs.of(
        7,
        spec(0, staging="copy"),
        SPOOL,
        None,
        retry=Retry(),
        room=inward.Room(tmp_path, 0),
        twins={},  # type: ignore[arg-type]
    )
    work.book.found(work.book.sources[0], IntervalSet.span(0, 10))
    work.told(spec(0, 2, staging="copy"))
    work.told(spec(2, 5, staging="copy"))
    assert [(s.number, s.cover.first) for s in work.book.sources] == [(0, 0), (1, 20), (2, 50)]
    work.need(IntervalSet.span(0, 10) | IntervalSet.span(20, 25) | IntervalSet.span(50, 51))
    assert work.book.ready() == IntervalSet.span(0, 10)
    assert work.book.missing() == 2
