"""The REST API over a real server: users, edges, and the way of an event between them."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import httpx2
import pytest
from support.dispatcher import RunningDispatcher, running_dispatcher, spec

from hpcpanda.client.async_sdk import AsyncDispatcherClient
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.run import create_token, serve
from hpcpanda.domain.errors import (
    Conflict,
    EdgeNameTaken,
    Forbidden,
    HpcPandaError,
    IllegalTransition,
    InvalidValue,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from hpcpanda.domain.exchange import (
    Capacity,
    EdgeRegistration,
    LeaseCommit,
    LeaseGrant,
    LeaseReturn,
    OutputFile,
    SyncReply,
    SyncRequest,
    TaskActivity,
    TaskFault,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.validation import MAX_EVENTS

INSTANCE = "local-1"


def capacity(events: int = 1000, **more: object) -> Capacity:
    """Room for so many events of one second."""
    return Capacity(instance=INSTANCE, cores=1, seconds=float(events), **more)


def lease(edge: DispatcherClient, task_id: int, events: int = 1000) -> LeaseGrant:
    (grant,) = edge.acquire("local", capacity(events, task_id=task_id)).leases
    return grant


def commit(
    edge: DispatcherClient, task_id: int, epoch: int, done: IntervalSet, *failed: int, seconds: float = 0.0
) -> SyncReply:
    failures = tuple(FailedEvent(event=e, error="ValueError: bad event") for e in failed)
    update = LeaseCommit(task_id=task_id, epoch=epoch, done=done, failed=failures, core_seconds=seconds)
    return edge.sync("local", SyncRequest(instance=INSTANCE, commits=(update,)))


def output(task_id: int, events: IntervalSet, path: str = "/out/a.h5") -> OutputFile:
    return OutputFile(
        task_id=task_id, path=path, manifest=path + ".json", events=events, digest="sha256:0", size=10
    )


def test_a_task_goes_all_the_way(user: DispatcherClient, edge: DispatcherClient) -> None:
    """Submitted, leased, committed, merged: the task is done and every number on the way is right."""
    task = user.submit(spec(100))
    assert (task.state, task.progress.ready, task.owner) == (TaskState.READY, 100, "local")
    grant = lease(edge, task.task_id)
    assert grant.events == IntervalSet.span(0, 100)
    assert user.task(task.task_id).state is TaskState.RUNNING

    reply = commit(edge, task.task_id, grant.epoch, IntervalSet.span(0, 60), seconds=30.0)
    assert reply.commits[0].accepted == IntervalSet.span(0, 60)
    progress = user.task(task.task_id).progress
    assert (progress.done, progress.leased, progress.event_seconds) == (60, 40, 0.5)
    assert progress.events_per_second > 0

    reply = commit(edge, task.task_id, grant.epoch, IntervalSet.span(60, 100))
    assert reply.tasks[0].state is TaskState.MERGING
    report = SyncRequest(instance=INSTANCE, outputs=(output(task.task_id, IntervalSet.span(0, 100)),))
    assert edge.sync("local", report).tasks[0].state is TaskState.DONE
    assert edge.sync("local", report).rejected_outputs == ()
    assert [f.path for f in user.outputs(task.task_id).files] == ["/out/a.h5"]
    assert user.explain(task.task_id).reasons == ("All 100 events are in the outputs.",)


def test_commits_may_be_repeated_and_reordered(user: DispatcherClient, edge: DispatcherClient) -> None:
    """The same commits in another order, each twice, count once and are answered alike."""
    task_id = user.submit(spec(100)).task_id
    epoch = lease(edge, task_id).epoch
    parts = [IntervalSet.span(a, a + 20) for a in (40, 0, 60, 0, 40, 60)]
    for part in parts:
        result = commit(edge, task_id, epoch, part, seconds=20.0).commits[0]
        assert (result.accepted, result.refused) == (part, EMPTY)
    progress = user.task(task_id).progress
    assert (progress.done, progress.leased, progress.event_seconds) == (60, 40, 1.0)


def test_unknown_epochs_and_other_edges_leases_are_refused(
    dispatcher: RunningDispatcher, user: DispatcherClient, edge: DispatcherClient
) -> None:
    """An edge touches nothing but its own leases."""
    task_id = user.submit(spec(100)).task_id
    epoch = lease(edge, task_id).epoch
    events = IntervalSet.span(0, 10)
    assert commit(edge, task_id, epoch + 7, events).commits[0].refused == events
    assert commit(edge, 10**30, 10**30, events).commits[0].refused == events
    with dispatcher.edge("other") as other:
        update = LeaseCommit(task_id=task_id, epoch=epoch, done=events)
        back = LeaseReturn(task_id=task_id, epoch=epoch, events=events)
        fault = TaskFault(task_id=task_id, error="I do not like it")
        reply = other.sync(
            "other",
            SyncRequest(
                instance="other-1",
                commits=(update,),
                returns=(back,),
                renew=((task_id, epoch),),
                faults=(fault,),
                outputs=(output(task_id, events),),
            ),
        )
    assert reply.commits[0].refused == events
    assert reply.lost == ((task_id, epoch),)
    assert reply.rejected_outputs == ("/out/a.h5",)
    assert reply.tasks[0].state is TaskState.RUNNING
    assert user.task(task_id).progress.leased == 100


def test_late_renewals_and_commits_lose(tmp_path: Path) -> None:
    """After a lease has expired its epoch can neither renew nor commit; the events go to a new epoch."""
    with (
        running_dispatcher(tmp_path / "state", lease_seconds=0.3, sweep_seconds=3600) as dispatcher,
        dispatcher.user() as user,
        dispatcher.edge() as edge,
    ):
        task_id = user.submit(spec(10)).task_id
        first = lease(edge, task_id)
        second = edge.acquire("local", capacity(task_id=task_id, wait_s=0.0)).leases
        while not second:
            second = edge.acquire("local", capacity(task_id=task_id, wait_s=0.2)).leases
        assert second[0].epoch > first.epoch
        assert second[0].events == first.events
        late = SyncRequest(
            instance=INSTANCE,
            renew=((task_id, first.epoch), (task_id, second[0].epoch)),
            commits=(LeaseCommit(task_id=task_id, epoch=first.epoch, done=first.events),),
        )
        reply = edge.sync("local", late)
        assert reply.lost == ((task_id, first.epoch),)
        assert reply.commits[0].refused == first.events
        assert user.task(task_id).progress.done == 0


def test_returned_events_are_leased_again(user: DispatcherClient, edge: DispatcherClient) -> None:
    """Unprocessed events come back in one piece, under a new epoch; a repeated return changes nothing."""
    task_id = user.submit(spec(100)).task_id
    epoch = lease(edge, task_id, 50).epoch
    back = SyncRequest(
        instance=INSTANCE,
        returns=(LeaseReturn(task_id=task_id, epoch=epoch, events=IntervalSet.span(30, 50)),),
    )
    edge.sync("local", back)
    edge.sync("local", back)
    assert user.task(task_id).progress.ready == 70
    again = lease(edge, task_id, 60)
    assert again.events == IntervalSet.span(30, 90)
    edge.sync("local", back)
    assert user.task(task_id).progress.ready == 10


def test_losses_beyond_the_allowed_fail_the_task(user: DispatcherClient, edge: DispatcherClient) -> None:
    """One failed event more than allowed fails the task, names the first, and ends its leases."""
    task_id = user.submit(spec(100, max_failed=1)).task_id
    epoch = lease(edge, task_id).epoch
    assert commit(edge, task_id, epoch, EMPTY, 7).tasks[0].state is TaskState.RUNNING
    assert commit(edge, task_id, epoch, EMPTY, 3).tasks[0].state is TaskState.FAILED
    task = user.task(task_id)
    assert task.message == (
        "2 events failed and the task may lose 1; the first is event 3: ValueError: bad event"
    )
    assert [f.event for f in user.failures(task_id).events] == [3, 7]
    assert user.failures(task_id, limit=1).next_after == 3
    late = commit(edge, task_id, epoch, IntervalSet.span(10, 20)).commits[0]
    assert late.refused == IntervalSet.span(10, 20)
    repeated = commit(edge, task_id, epoch, EMPTY, 7).commits[0]
    assert repeated.accepted == IntervalSet.span(7, 8)


def test_allowed_losses_end_in_finished(user: DispatcherClient, edge: DispatcherClient) -> None:
    """Outputs that hold all but the failed events finish the task; failed events are in no output."""
    task_id = user.submit(spec(10, max_failed=2)).task_id
    epoch = lease(edge, task_id).epoch
    commit(edge, task_id, epoch, IntervalSet.span(1, 10), 0)
    wrong = output(task_id, IntervalSet.span(0, 10), "/out/wrong")
    right = output(task_id, IntervalSet.span(1, 10), "/out/right")
    twice = output(task_id, IntervalSet.span(5, 6), "/out/twice")
    reply = edge.sync("local", SyncRequest(instance=INSTANCE, outputs=(wrong, right, twice)))
    assert reply.rejected_outputs == ("/out/wrong", "/out/twice")
    assert reply.tasks[0].state is TaskState.FINISHED


def test_a_task_of_which_everything_failed_is_failed(user: DispatcherClient, edge: DispatcherClient) -> None:
    """With nothing to merge there is no output to wait for."""
    task_id = user.submit(spec(2, max_failed=2)).task_id
    epoch = lease(edge, task_id).epoch
    assert commit(edge, task_id, epoch, EMPTY, 0, 1).tasks[0].state is TaskState.FAILED


def test_cancelling_ends_leases(user: DispatcherClient, edge: DispatcherClient) -> None:
    """After a cancel commits are refused, renewals lost, nothing is leased; a second cancel is the same."""
    task_id = user.submit(spec(100)).task_id
    epoch = lease(edge, task_id, 50).epoch
    commit(edge, task_id, epoch, IntervalSet.span(0, 10))
    assert user.cancel(task_id).state is TaskState.ABORTED
    assert user.cancel(task_id).state is TaskState.ABORTED
    update = LeaseCommit(task_id=task_id, epoch=epoch, done=IntervalSet.span(0, 20))
    reply = edge.sync("local", SyncRequest(instance=INSTANCE, renew=((task_id, epoch),), commits=(update,)))
    assert reply.commits[0].accepted == IntervalSet.span(0, 10)
    assert reply.commits[0].refused == IntervalSet.span(10, 20)
    assert reply.lost == ((task_id, epoch),)
    assert reply.tasks[0].state is TaskState.ABORTED
    assert edge.acquire("local", capacity(task_id=task_id)).leases == ()


def test_a_fault_fails_the_task(user: DispatcherClient, edge: DispatcherClient) -> None:
    """A task that cannot run where it was given to is failed with the edge's words."""
    task_id = user.submit(spec(100)).task_id
    lease(edge, task_id)
    fault = TaskFault(task_id=task_id, error="ModuleNotFoundError: module")
    edge.sync("local", SyncRequest(instance=INSTANCE, faults=(fault,)))
    assert user.task(task_id).message == "edge local cannot run it: ModuleNotFoundError: module"
    with pytest.raises(IllegalTransition):
        user.cancel(task_id)


def test_work_is_sized_and_ordered(user: DispatcherClient, edge: DispatcherClient) -> None:
    """Capacity is filled by priority, then age, with the measured cost, else the guess, else one second."""
    old = user.submit(spec(100)).task_id
    urgent = user.submit(spec(10, priority=5, event_seconds=2.0)).task_id
    grants = edge.acquire("local", Capacity(instance=INSTANCE, cores=4, seconds=10.0)).leases
    assert [(g.task_id, len(g.events)) for g in grants] == [(urgent, 10), (old, 20)]
    commit(edge, old, grants[1].epoch, IntervalSet.span(0, 20), seconds=2.0)
    measured = edge.acquire("local", Capacity(instance=INSTANCE, cores=1, seconds=5.0)).leases
    assert [(g.task_id, len(g.events), g.event_seconds) for g in measured] == [(old, 50, 0.1)]
    tiny = edge.acquire("local", Capacity(instance=INSTANCE, cores=1, seconds=0.001)).leases
    assert [len(g.events) for g in tiny] == [1]


async def test_waiting_edges_are_woken_by_a_submission(dispatcher: RunningDispatcher) -> None:
    """A long poll is answered when a task comes, long before its time is up."""
    with dispatcher.edge():
        pass
    async with (
        dispatcher.async_user() as user,
        AsyncDispatcherClient(dispatcher.url, dispatcher.edge_token()) as edge,
    ):
        waiting = asyncio.create_task(edge.acquire("local", capacity(wait_s=30.0)))
        task = await user.submit(spec(10))
        async with asyncio.timeout(10):
            grants = await waiting
        assert grants.leases[0].task_id == task.task_id


async def test_an_edge_that_has_ended_is_leased_nothing(dispatcher: RunningDispatcher) -> None:
    """What it had asked for before is not given to a closed connection, where it would lie until the lease is over."""
    with dispatcher.edge():
        pass
    token = await asyncio.to_thread(create_token, dispatcher.settings, "monitor", "watcher")
    shown = {"Authorization": f"Bearer {token}"}
    async with (
        dispatcher.async_user() as user,
        httpx2.AsyncClient(base_url=dispatcher.url, headers=shown) as figures,
    ):

        async def waiting() -> bool:
            return "hpcpanda_waiting_requests 1.0" in (await figures.get("/metrics")).text

        async with AsyncDispatcherClient(dispatcher.url, dispatcher.edge_token()) as edge:
            asked = asyncio.create_task(edge.acquire("local", capacity(wait_s=30.0)))
            async with asyncio.timeout(20):
                while not await waiting():
                    await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        task = await user.submit(spec(10))
        async with asyncio.timeout(20):
            while await waiting():
                await asyncio.sleep(0.05)
        progress = (await user.task(task.task_id)).progress
        assert (progress.ready, progress.leased) == (10, 0)


async def test_stopping_releases_waiting_edges(dispatcher: RunningDispatcher) -> None:
    """SIGTERM answers long polls at once, and the process ends within the grace time."""
    with dispatcher.edge():
        pass
    async with AsyncDispatcherClient(dispatcher.url, dispatcher.edge_token()) as edge:
        waiting = asyncio.create_task(edge.acquire("local", capacity(wait_s=30.0)))
        assert (await edge.health()).status == "ok"
        dispatcher.process.terminate()
        async with asyncio.timeout(10):
            assert (await waiting).leases == ()
    await asyncio.to_thread(dispatcher.process.wait, 10)
    assert not dispatcher.settings.url_file.exists()


def test_leases_whose_grant_was_lost_end_when_the_edge_starts_again(
    user: DispatcherClient, edge: DispatcherClient
) -> None:
    """An edge that says at its start what it holds gets everything else of it made ready again."""
    task = user.submit(spec(events=100))
    known = lease(edge, task.task_id, 30)
    lost = lease(edge, task.task_id, 50)
    edge.register_edge(
        "local", EdgeRegistration(instance=INSTANCE, cores=8, held=((task.task_id, known.epoch),))
    )
    progress = user.task(task.task_id).progress
    assert (progress.leased, progress.ready) == (30, 70)
    late = commit(edge, task.task_id, lost.epoch, lost.events)
    assert late.commits[0].refused == lost.events
    edge.register_edge("local", EdgeRegistration(instance=INSTANCE, cores=8))
    assert user.task(task.task_id).progress.leased == 30


def test_a_second_instance_cannot_take_a_living_name(
    dispatcher: RunningDispatcher, edge: DispatcherClient
) -> None:
    """The same instance registers as often as it likes; another one under its name is told to wait."""
    edge.register_edge("local", EdgeRegistration(instance=INSTANCE, cores=8))
    with pytest.raises(EdgeNameTaken, match="local-1"):
        edge.register_edge("local", EdgeRegistration(instance="thief", cores=8))
    with pytest.raises(EdgeNameTaken):
        edge.acquire("local", Capacity(instance="thief", cores=1, seconds=1))
    with pytest.raises(EdgeNameTaken):
        edge.sync("local", SyncRequest(instance="thief"))


def test_a_silent_edge_gives_its_name_up(tmp_path: Path) -> None:
    """Once an instance has been silent long enough another one may take its name."""
    with (
        running_dispatcher(tmp_path / "state", edge_alive_seconds=1e-6) as dispatcher,
        dispatcher.edge() as edge,
    ):
        edge.register_edge("local", EdgeRegistration(instance="heir", cores=8))
        with pytest.raises(EdgeNameTaken):
            edge.sync("local", SyncRequest(instance=INSTANCE))


def test_unregistered_edges_are_told_to_register(shared: RunningDispatcher) -> None:
    """Asking for work before registering is an error that says what to do."""
    with DispatcherClient(shared.url, shared.edge_token("stranger")) as stranger:
        with pytest.raises(NotFound, match="register it first"):
            stranger.acquire("stranger", Capacity(instance="x", cores=1, seconds=1))
        with pytest.raises(NotFound, match="register it first"):
            stranger.sync("stranger", SyncRequest(instance="x"))


def test_submitting_again_with_the_same_key_gives_the_same_task(shared: RunningDispatcher) -> None:
    """A key stands for one specification of one owner."""
    with shared.user() as user, shared.other_user("bob") as bob:
        first = user.submit(spec(10), idempotency_key="k1")
        assert user.submit(spec(10), idempotency_key="k1").task_id == first.task_id
        assert bob.submit(spec(10), idempotency_key="k1").task_id != first.task_id
        with pytest.raises(Conflict, match="specified differently"):
            user.submit(spec(11), idempotency_key="k1")


def test_listing_filters_and_pages(shared: RunningDispatcher) -> None:
    """Pages are newest first, without gaps or repetition, and filters hold on all of them."""
    with shared.user() as user:
        ids = [user.submit(spec(10, name="paged")).task_id for _ in range(5)]
        user.cancel(ids[2])
        seen: list[int] = []
        page = user.tasks(name="paged", limit=2)
        seen += [t.task_id for t in page.tasks]
        while page.next_after is not None:
            page = user.tasks(name="paged", limit=2, after=page.next_after)
            seen += [t.task_id for t in page.tasks]
        assert seen == ids[::-1]
        aborted = user.tasks(name="paged", state=TaskState.ABORTED, owner="local")
        assert [t.task_id for t in aborted.tasks] == [ids[2]]
        assert user.tasks(owner="nobody").tasks == ()


def test_tokens_open_only_their_own_doors(shared: RunningDispatcher) -> None:
    """No token, a wrong one, one of another scope, of another edge, of another user: each is refused."""
    with DispatcherClient(shared.url) as nobody, DispatcherClient(shared.url, "guess") as guess:
        for client in (nobody, guess):
            assert client.health().status == "ok"
            with pytest.raises(Unauthenticated):
                client.tasks()
    with shared.user() as user, shared.edge() as edge, shared.other_user("eve") as eve:
        with pytest.raises(Forbidden, match="scope tasks:read"):
            edge.tasks()
        with pytest.raises(Forbidden, match="scope edge"):
            user.sync("local", SyncRequest(instance="x"))
        with pytest.raises(Forbidden, match="for edge 'local'"):
            edge.register_edge("other", EdgeRegistration(instance="x", cores=1))
        task_id = user.submit(spec(10)).task_id
        with pytest.raises(Forbidden, match="belongs to local"):
            eve.cancel(task_id)


def test_secrets_are_private_and_not_stored(shared: RunningDispatcher) -> None:
    """Token files are readable by their owner only, and the database does not hold a token."""
    for file in (shared.settings.user_token_file, shared.settings.edge_token_file("local")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        token = file.read_bytes().strip()
        for database in shared.settings.state.glob("dispatcher.sqlite*"):
            assert token not in database.read_bytes()


def test_explaining_says_what_is_missing(user: DispatcherClient, dispatcher: RunningDispatcher) -> None:
    """No edge, a task ahead, who holds what: each is a sentence."""
    first = user.submit(spec(100, name="big", priority=3)).task_id
    second = user.submit(spec(100)).task_id
    reasons = user.explain(second).reasons
    assert "No edge has registered yet: nothing runs until one does." in reasons
    assert any(f"behind task {first} (big), of higher priority" in reason for reason in reasons)
    with dispatcher.edge() as edge:
        epoch = lease(edge, second, 40).epoch
        explanation = user.explain(second)
        assert "40 events are leased to edge local." in explanation.reasons
        (info,) = explanation.leases
        assert (info.epoch, info.edge, info.outstanding) == (epoch, "local", 40)
        assert 0 < info.expires_in_s <= 300


def test_activity_is_what_was_said_last(user: DispatcherClient, edge: DispatcherClient) -> None:
    """Cores shown are those of the last report; a report without the task takes them back."""
    task_id = user.submit(spec(100)).task_id
    busy = TaskActivity(task_id=task_id, cores=8, cores_busy=7.5)
    edge.sync("local", SyncRequest(instance=INSTANCE, activity=(busy,)))
    progress = user.task(task_id).progress
    assert (progress.cores, progress.cores_busy) == (8, 7.5)
    edge.sync("local", SyncRequest(instance=INSTANCE))
    assert user.task(task_id).progress.cores == 0
    (info,) = user.edges()
    assert (info.name, info.alive, info.cores) == ("local", True, 8)


def test_the_largest_event_space_works(user: DispatcherClient, edge: DispatcherClient) -> None:
    """2**63 - 1 events are leased and committed at both ends without loss of a digit."""
    task_id = user.submit(spec(MAX_EVENTS, event_seconds=1e-9)).task_id
    head = edge.acquire("local", Capacity(instance=INSTANCE, cores=1, seconds=1.0)).leases[0]
    assert head.events == IntervalSet.span(0, 10**9)
    rest = edge.acquire("local", Capacity(instance=INSTANCE, cores=10**9, seconds=1e8)).leases[0]
    assert rest.events == IntervalSet.span(10**9, MAX_EVENTS)
    for grant in (head, rest):
        reply = commit(edge, task_id, grant.epoch, grant.events, seconds=1.0)
        assert reply.commits[0].accepted == grant.events
    task = user.task(task_id)
    assert (task.state, task.progress.done) == (TaskState.MERGING, MAX_EVENTS)


def test_contradictory_commits_change_nothing(user: DispatcherClient, edge: DispatcherClient) -> None:
    """A message that reports an event done and failed is refused as a whole."""
    task_id = user.submit(spec(100)).task_id
    epoch = lease(edge, task_id).epoch
    good = LeaseCommit(task_id=task_id, epoch=epoch, done=IntervalSet.span(0, 10))
    bad = LeaseCommit(
        task_id=task_id,
        epoch=epoch,
        done=IntervalSet.span(10, 20),
        failed=(FailedEvent(event=12, error="x"),),
    )
    with pytest.raises(InvalidValue, match="done and failed"):
        edge.sync("local", SyncRequest(instance=INSTANCE, commits=(good, bad)))
    assert user.task(task_id).progress.done == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "not JSON"),
        (b'{"name": NaN}', "NaN is not a number"),
        (b'{"name": 1e999}', "too large a number"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "required"),
        (b'{"name": "\\ud800"}', "surrogates"),
        (b'{"name": "\xed\xa0\x80"}', "not JSON"),
        (b'{"name": "a", "shoe_size": 47}', "shoe_size"),
        (
            b'{"name": "a", "payload": {"call": "a:b"}, "output": {"file": "a"}, "events": 1'
            + b"0" * 400
            + b"}",
            "events",
        ),
    ],
)
def test_hostile_bodies_are_refused(shared: RunningDispatcher, body: bytes, says: str) -> None:
    """Whatever the body, the answer is a problem that says what is wrong."""
    headers = {"Authorization": f"Bearer {shared.user_token}", "Content-Type": "application/json"}
    answer = httpx2.post(f"{shared.url}/v1/tasks", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.text


def test_every_wrong_field_is_listed(shared: RunningDispatcher) -> None:
    """One answer names all wrong fields, and only those of the payload form that was meant."""
    headers = {"Authorization": f"Bearer {shared.user_token}"}
    body = {
        "name": "x",
        "payload": {"call": "nonsense"},
        "output": {"file": "a/b"},
        "events": 3,
        "resources": {"memory_mb": 3},
    }
    problem = httpx2.post(f"{shared.url}/v1/tasks", json=body, headers=headers).json()
    assert [line.partition(":")[0] for line in problem["errors"]] == [
        "payload.call",
        "output.file",
        "resources.memory_mb",
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_large_bodies_are_refused(tmp_path: Path, streamed: bool) -> None:
    """A body over the limit is 413, whether it says its length or not, and the service lives on."""
    with running_dispatcher(tmp_path / "state", body_limit=10_000) as dispatcher:
        piece = b"x" * 1000
        content = (piece for _ in range(20)) if streamed else piece * 20
        answer = httpx2.post(f"{dispatcher.url}/v1/tasks", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
        with dispatcher.user() as user:
            assert user.health().status == "ok"


@pytest.mark.parametrize(
    "path", ["/v1/tasks/0", f"/v1/tasks/{10**30}", "/v1/tasks?after=-1", "/v1/tasks?limit=0"]
)
def test_numbers_out_of_range_are_refused(shared: RunningDispatcher, path: str) -> None:
    """Numbers in a URL that no column holds never reach the database."""
    headers = {"Authorization": f"Bearer {shared.user_token}"}
    assert httpx2.get(shared.url + path, headers=headers).status_code == 422


def test_what_is_not_there_is_a_problem_too(shared: RunningDispatcher) -> None:
    """Unknown tasks, paths and methods are answered in the same form."""
    with shared.user() as user:
        for ask in (user.task, user.cancel, user.outputs, user.failures, user.explain):
            with pytest.raises(NotFound, match="no task 123456"):
                ask(123456)
    assert httpx2.get(f"{shared.url}/v2").json()["code"] == "not-found"
    assert httpx2.delete(f"{shared.url}/v1/tasks").json()["status"] == 405


def test_an_unreachable_dispatcher_is_named(tmp_path: Path) -> None:
    """A client that gets no answer says whom it asked."""
    silent = DispatcherClient("http://127.0.0.1:9", "t")
    with silent, pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9"):
        silent.task(1)
    with pytest.raises(InvalidValue, match="url"):
        DispatcherClient("http://[")


def test_one_dispatcher_a_state_folder(shared: RunningDispatcher) -> None:
    """A second dispatcher over the same folder refuses to start."""
    with pytest.raises(Unavailable, match="another dispatcher"):
        serve(shared.settings)


def test_tokens_are_for_known_scopes(shared: RunningDispatcher) -> None:
    """A token of no scope cannot be made."""
    with pytest.raises(HpcPandaError, match="scope"):
        create_token(shared.settings, "king", "arthur")
