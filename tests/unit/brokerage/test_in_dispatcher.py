"""Order and brokerage in the dispatcher: who is leased what, what is charged, and what is told."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, text

from hpcpanda.brokerage.broker import PATIENCE_S, STALLED_S
from hpcpanda.brokerage.network import Data
from hpcpanda.brokerage.shares import Quota, Share, SharePlan
from hpcpanda.dispatcher.usecases.ordering import ENOUGH, forget_usage
from hpcpanda.domain.errors import InvalidValue, TooLarge
from hpcpanda.domain.exchange import LeaseCommit, TaskActivity
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.site_report import SiteReport, Transfer
from hpcpanda.domain.task import LossPolicy

THREE = SharePlan(
    shares=tuple(Share(name=n, target=t, groups=(n,)) for n, t in (("a", 50), ("b", 30), ("default", 20)))
)


async def test_shares_are_met(world: Any) -> None:
    """Three groups whose tasks have work for days, priorities against the targets: 110 leases, each group within 2 %."""
    world.share(THREE)
    groups = {}
    for group, owner, priority in (("a", "ada", -500), ("b", "bob", 0), (None, "cleo", 1000)):
        groups[await world.submit(10**6, owner=owner, group=group, priority=priority)] = group
    had: Counter[str | None] = Counter()
    for _ in range(110):
        for task_id, events in (await world.work()).items():
            had[groups[task_id]] += events
        world.now += 60
    total = sum(had.values())
    assert {g: n / total for g, n in had.items()} == pytest.approx({"a": 0.5, "b": 0.3, None: 0.2}, abs=0.02)


async def test_what_is_leased_counts_before_it_is_finished(world: Any) -> None:
    """Nothing is committed at all, and the shares are met in what is held."""
    world.share(THREE)
    a = await world.submit(10**6, group="a")
    b = await world.submit(10**6, group="b")
    had: Counter[int] = Counter()
    for _ in range(64):
        for task_id, events in await world.ask():
            had[task_id] += events
    assert had[a] / (had[a] + had[b]) == pytest.approx(5 / 8, abs=0.02)


async def test_use_is_charged_once_per_hour_and_lane(world: Any) -> None:
    """As much as was accepted; a message that comes twice, or commits what is not held, charges nothing. After a week of half-lives of a day it is forgotten."""
    task_id = await world.submit(1000)
    (grant,) = (await world.grants(cores=100)).leases
    commit = LeaseCommit(task_id=task_id, epoch=grant.epoch, done=grant.events, core_seconds=500.0)
    for _ in range(3):
        await world.sync(commits=(commit,))
    await world.sync(commits=(LeaseCommit(task_id=task_id, epoch=99, done=grant.events, core_seconds=9e9),))
    async with world.store.reading() as uow:
        assert await uow.lanes.used(0) == [("ada", None, int(world.now // 3600), 500.0)]
    for days, left in ((6, 1), (7, 0)):
        await forget_usage(world.store.writing(), tree=world.terms.tree, now=world.now + days * 86_400)
        async with world.store.reading() as uow:
            assert len(await uow.lanes.used(0)) == left


async def test_a_user_beyond_the_quota_waits_for_the_others(world: Any) -> None:
    """Until a day has passed."""
    world.share(SharePlan(quota=Quota(core_hours=0.01)))
    first = await world.submit(10**6)
    second = await world.submit(10**6, owner="bob")
    assert list(await world.work(cores=10)) == [first]
    assert list(await world.work(cores=10)) == [second]
    world.now += 25 * 3600
    assert list(await world.work(cores=10)) == [first]


async def test_nothing_starves_behind_many_of_higher_priority(world: Any) -> None:
    """One task of lowest priority behind more of highest than are looked up at once, of which one is served every two
    hours: once each of them has been, it is."""
    low = await world.submit(100, priority=-1000)
    for _ in range(ENOUGH + 20):
        await world.submit(10**6, priority=1000)
    for _ in range(ENOUGH + 22):
        if low in await world.work(seconds=1.0):
            break
        world.now += 7200
    else:
        pytest.fail("it was never served")


async def test_a_deadline_brings_a_task_forward(world: Any) -> None:
    """Behind more of the same priority than are looked up at once."""
    for _ in range(ENOUGH + 20):
        await world.submit(10**6)
    late = datetime.fromtimestamp(world.now + 3600, tz=UTC)
    urgent = await world.submit(100, deadline=late)
    assert [t for t, _ in await world.ask()] == [urgent]


@pytest.mark.parametrize(
    ("requirements", "site", "given"),
    [
        ({"architectures": ("aarch64",)}, {"architecture": "aarch64"}, True),
        ({"architectures": ("aarch64",)}, {"architecture": "x86_64"}, False),
        ({"architectures": ("aarch64",)}, {}, False),
        ({"tags": ("root:6",)}, {"tags": ("root:6", "x")}, True),
        ({"tags": ("root:6",)}, {"tags": ("x",)}, False),
        ({"data_policy": "medical"}, {"tags": ("data:medical",)}, True),
        ({"data_policy": "medical"}, {}, False),
        ({"not_sites": ("e",)}, {}, False),
        ({"sites": ("f",)}, {}, False),
        ({"sites": ("e",)}, {}, True),
    ],
    ids=str,
)
async def test_hard_demands_are_kept(
    world: Any, requirements: dict[str, Any], site: dict[str, Any], given: bool
) -> None:
    """Also when the edge asks for the task by its number; and what comes behind is not held up."""
    await world.edge("e", **site)
    picky = await world.submit(10, priority=5, requirements=Requirements(**requirements))
    other = await world.submit(10)
    assert [t for t, _ in await world.ask(seconds=1.0)] == [picky if given else other]
    assert [t for t, _ in await world.ask(seconds=1.0, task_id=picky)] == ([picky] if given else [])
    told = await world.explain(picky)
    assert any("No living edge may have it" in reason for reason in told.reasons) is not given
    assert [r.why.code == "given" for r in told.brokerage] == [given]


async def test_a_worse_site_waits_for_a_better_one_and_says_so(world: Any) -> None:
    """While the better one asks for more; then it may have it. Both decisions are told, with numbers."""
    await world.edge("bad")
    await world.sync("bad", site=SiteReport(queue_wait_s=36_000.0))
    assert await world.ask("e") == []
    task_id = await world.submit(100)
    assert await world.ask("bad") == []
    (said,) = (await world.explain(task_id)).brokerage
    assert (said.edge, said.why.code) == ("bad", "better-site")
    assert said.why.numbers["wait_s"] == 36_000.0
    assert await world.ask("e") == [(task_id, 10)]
    assert await world.ask("bad") == [(task_id, 10)], "the better one has had its fill"
    codes = {r.edge: r.why.code for r in (await world.explain(task_id)).brokerage}
    assert codes == {"bad": "given", "e": "given"}


async def test_after_a_while_anyone_may_have_it(world: Any) -> None:
    """The better one asks and asks, for another kind of work."""
    await world.edge("bad")
    await world.sync("bad", site=SiteReport(queue_wait_s=36_000.0))
    task_id = await world.submit(100)
    for _ in range(int(PATIENCE_S // 20)):
        assert await world.ask("e", without=(task_id,)) == []
        assert await world.ask("bad") == []
        world.now += 20
    assert await world.ask("bad") == [(task_id, 10)]


async def test_work_waits_for_the_site_that_has_its_data(world: Any) -> None:
    """A terabyte over a link of which copies have shown that it is slow; over one that is fast it does not matter."""
    await world.edge("far")
    slow, fast = 10**12, 10**13
    task_id = await world.submit(100)
    async with world.store.writing() as uow:
        await uow.data.put(task_id, Data(size=10**12, at={"e": 10**12}))
    assert await world.ask("e", without=(task_id,)) == []
    await world.sync("far", site=SiteReport(transfers=(Transfer(source="e", size=slow, seconds=1e5),)))
    assert await world.ask("far") == []
    await world.sync("far", site=SiteReport(transfers=(Transfer(source="e", size=fast, seconds=100.0),) * 5))
    assert await world.ask("far") == [(task_id, 10)]


async def test_failures_make_a_site_worse(world: Any) -> None:
    """Four thousand failed events at one site, and new work waits for the other."""
    await world.edge("bad")
    await world.submit(5000, loss=LossPolicy(max_failed_events=5000))
    (grant,) = (await world.grants("bad", cores=500)).leases
    failed = tuple(FailedEvent(event=e, error="x") for e in range(4000))
    await world.sync("bad", commits=(LeaseCommit(task_id=grant.task_id, epoch=1, failed=failed),))
    assert await world.ask("e", cores=1000) == []
    new = await world.submit(10)
    assert await world.ask("bad", cores=1000) == []
    assert (await world.explain(new)).brokerage[0].why.numbers["retry_s"] > 600
    assert await world.ask("e", cores=1000) == [(new, 10)]


@pytest.mark.parametrize("busy", [False, True])
async def test_a_stalled_site_loses_what_another_could_run(world: Any, busy: bool) -> None:
    """Not while it has cores at work on it; what it commits too late is refused, so nothing is counted twice."""
    await world.edge("stalled")
    task_id = await world.submit(10)
    assert await world.ask("stalled") == [(task_id, 10)]
    if busy:
        await world.sync("stalled", activity=(TaskActivity(task_id=task_id, cores=1, cores_busy=1.0),))
    assert await world.ask("e") == []
    world.now += STALLED_S + 60
    assert await world.ask("e") == ([] if busy else [(task_id, 10)])
    if busy:
        return
    (result,) = (
        await world.sync(
            "stalled", commits=(LeaseCommit(task_id=task_id, epoch=1, done=IntervalSet.span(0, 10)),)
        )
    ).commits
    assert not result.accepted
    codes = {r.edge: r.why.code for r in (await world.explain(task_id)).brokerage}
    assert codes == {"e": "given", "stalled": "stalled"}


async def test_explaining_the_order(world: Any) -> None:
    """Points by component that add up, and who comes first for which reason."""
    world.share(THREE)
    a = await world.submit(10**6, group="a")
    b = await world.submit(10**6, group="b")
    low = await world.submit(10**6, group="b", priority=-5)
    await world.work(cores=100)
    told = await world.explain(a)
    assert told.order is not None
    assert told.order.numbers["target"] == pytest.approx(5 / 8)
    assert told.order.numbers["used_core_s"] == pytest.approx(1000.0, rel=0.02)
    assert f"It waits behind task {b} (t), whose share b has had less of its part" in " ".join(told.reasons)
    assert f"It waits behind task {b} (t), of higher priority" in " ".join((await world.explain(low)).reasons)
    assert "It waits behind" not in " ".join((await world.explain(b)).reasons)


async def test_demands_of_a_user_are_bounded(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that lanes are; more are refused, those that there are go on."""
    monkeypatch.setattr("hpcpanda.dispatcher.store.lanes.MAX_LANES_OF_USER", 5)
    for n in range(5):
        await world.submit(1, requirements=Requirements(tags=(f"t{n}",)))
    with pytest.raises(TooLarge, match="different groups and requirements"):
        await world.submit(1)
    await world.submit(1, requirements=Requirements(tags=("t0",)))
    await world.submit(1, owner="bob")


async def test_the_number_of_statements_does_not_grow_with_tasks(world: Any) -> None:
    """With thirty times the tasks, and shares, a request takes as many statements; and the hot queries use the
    indexes made for them."""
    world.share(THREE)
    counted: list[int] = []
    statements: list[str] = []
    await world.submit(10)
    await world.work()
    engine = world.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    for tasks in (3, 90):
        for n in range(tasks):
            await world.submit(10**6, group=("a", "b", None)[n % 3])
        statements.clear()
        assert len(await world.ask(cores=8)) == 1
        counted.append(len(statements))
    assert counted[0] == counted[1] <= 20, statements
    used = "SELECT min(served) FROM tasks WHERE lane_id = 2 AND ready > 0"
    first = (
        "SELECT task_id FROM tasks WHERE lane_id = 2 AND ready > 0 ORDER BY priority DESC, task_id LIMIT 8"
    )
    async with world.database.read() as connection:
        for query, index in ((used, "ix_tasks_lane_served"), (first, "ix_tasks_lane_priority")):
            rows = (await connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))).all()
            plan = " ".join(str(row[-1]) for row in rows)
            assert index in plan
            assert "TEMP B-TREE" not in plan


async def test_a_deadline_has_a_time_zone(world: Any) -> None:
    """Without one nobody knows when it is."""
    with pytest.raises(InvalidValue, match="without a time zone"):
        await world.submit(1, deadline=datetime(2026, 12, 1))  # noqa: DTZ001 - the point
