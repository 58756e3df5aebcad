"""An edge that lies, steals and repeats, beside honest ones: they are served, and the ledger stays exact.
Run over both databases (see test_conformance)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
from support.dispatcher import RunningDispatcher, spec

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import EdgeNameTaken, Forbidden, HpcPandaError, InvalidValue
from hpcpanda.domain.exchange import (
    MAX_UPDATES,
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

EVENTS = 120


class Edge:
    """One edge, by name."""

    def __init__(self, dispatcher: RunningDispatcher, name: str) -> None:
        self.name = name
        self.client: DispatcherClient = dispatcher.edge(name)

    def lease(self, task_id: int, events: int) -> LeaseGrant:
        capacity = Capacity(instance=f"{self.name}-1", cores=events, seconds=1.0, task_id=task_id)
        (grant,) = self.client.acquire(self.name, capacity).leases
        return grant

    def say(self, **said: object) -> SyncReply:
        return self.client.sync(self.name, SyncRequest(instance=f"{self.name}-1", **said))  # type: ignore[arg-type]

    def commit(self, task_id: int, epoch: int, done: IntervalSet, *failed: FailedEvent) -> IntervalSet:
        update = LeaseCommit(task_id=task_id, epoch=epoch, done=done, failed=failed, core_seconds=1.0)
        return self.say(commits=(update,)).commits[0].accepted


@pytest.fixture
def honest(shared: RunningDispatcher) -> Iterator[Edge]:
    edge = Edge(shared, "honest")
    yield edge
    edge.client.close()


@pytest.fixture
def hostile(shared: RunningDispatcher) -> Iterator[Edge]:
    edge = Edge(shared, "hostile")
    yield edge
    edge.client.close()


@pytest.fixture
def task_id(shared: RunningDispatcher) -> Iterator[int]:
    with shared.user() as user:
        task_id = user.submit(spec(EVENTS, event_seconds=1.0, max_failed=5)).task_id
        yield task_id
        progress = user.task(task_id).progress
        if not user.task(task_id).state.final:
            assert progress.ready + progress.leased + progress.done + progress.failed == EVENTS
            user.cancel(task_id)


def test_what_others_hold_is_out_of_reach(task_id: int, honest: Edge, hostile: Edge) -> None:
    """Commits, returns, renewals, outputs and faults about another edge's lease change nothing of it."""
    mine, theirs = honest.lease(task_id, 20), hostile.lease(task_id, 20)
    epoch = mine.epoch
    assert not hostile.commit(task_id, epoch, mine.events)
    hostile.say(returns=(LeaseReturn(task_id=task_id, epoch=epoch, events=mine.events),))
    assert hostile.say(renew=((task_id, epoch),)).lost == ((task_id, epoch),)
    assert not hostile.commit(task_id, theirs.epoch, mine.events), (
        "events of another lease under an own epoch"
    )
    assert honest.commit(task_id, epoch, mine.events) == mine.events
    theft = output(task_id, mine.events)
    assert hostile.say(outputs=(theft,)).rejected_outputs == (theft.path,)
    both = output(task_id, mine.events | theirs.events)
    assert hostile.say(outputs=(both,)).rejected_outputs == (both.path,)
    assert honest.say(outputs=(theft,)).rejected_outputs == ()
    hostile.commit(task_id, theirs.epoch, theirs.events)
    again = output(task_id, mine.events | theirs.events, path="/spool/again.h5")
    assert honest.say(outputs=(again,)).rejected_outputs == (again.path,), "an event in two files"


def output(task_id: int, events: IntervalSet, *, path: str = "/spool/out.h5") -> OutputFile:
    return OutputFile(
        task_id=task_id, path=path, manifest=path + ".json", events=events, digest="sha256:0", size=1
    )


def test_a_stranger_to_a_task_cannot_end_it(
    shared: RunningDispatcher, task_id: int, honest: Edge, hostile: Edge
) -> None:
    """A fault of an edge that was never given anything of the task is not believed; nor is its activity."""
    honest.lease(task_id, 10)
    hostile.say(faults=(TaskFault(task_id=task_id, error="I do not like it"),))
    with shared.user() as user:
        assert user.task(task_id).state is TaskState.RUNNING


def test_lies_about_events_are_refused(shared: RunningDispatcher, task_id: int, hostile: Edge) -> None:
    """Events outside of the space or the lease, done twice, done and failed, of epochs that do not exist or of numbers
    that no column holds."""
    grant = hostile.lease(task_id, 10)
    key = (task_id, grant.epoch)
    assert hostile.commit(*key, IntervalSet.span(EVENTS, MAX_EVENTS)) == EMPTY
    assert hostile.commit(*key, IntervalSet.span(0, MAX_EVENTS)) == grant.events
    assert hostile.commit(*key, IntervalSet.span(0, MAX_EVENTS)) == grant.events, "the same again"
    event = grant.events.bounds[0]
    late = FailedEvent(event=event, error="after it was done")
    with shared.user() as user:
        before = user.task(task_id).progress
        hostile.commit(*key, EMPTY, late)
        other = hostile.lease(task_id, 10)
        twice = FailedEvent(event=other.events.bounds[0], error="x")
        with pytest.raises(InvalidValue, match="done and failed"):
            hostile.commit(task_id, other.epoch, other.events, twice)
        for number in (0, -1, 2**63 - 1, 2**63, 2**200):
            assert hostile.commit(number, other.epoch, other.events) == EMPTY
        for epoch in (0, -1, other.epoch + 1, 2**63 - 1, 2**63, 2**200, -(2**70)):
            assert hostile.commit(task_id, epoch, other.events) == EMPTY
            assert hostile.say(renew=((task_id, epoch), (epoch, epoch)), tasks=(epoch,)).lost
        after = user.task(task_id).progress
        assert (after.done, after.failed) == (before.done, before.failed) == (10, 0)
    far = tuple(FailedEvent(event=MAX_EVENTS - 1 - n, error="x") for n in range(10))
    assert hostile.commit(task_id, other.epoch, EMPTY, *far) == EMPTY


def test_no_edge_speaks_for_another(shared: RunningDispatcher, honest: Edge, hostile: Edge) -> None:
    """With its own token it cannot register, lease or sync under another name; nor can a second instance of a name."""
    stolen = EdgeRegistration(instance="honest-1", cores=8, held=())
    with pytest.raises(Forbidden):
        hostile.client.register_edge("honest", stolen)
    with pytest.raises(Forbidden):
        hostile.client.acquire("honest", Capacity(instance="honest-1", cores=1, seconds=1.0))
    with pytest.raises(Forbidden):
        hostile.client.sync("honest", SyncRequest(instance="honest-1"))
    for call in (
        lambda: hostile.client.sync("hostile", SyncRequest(instance="hostile-2")),
        lambda: hostile.client.register_edge("hostile", EdgeRegistration(instance="hostile-2", cores=1)),
    ):
        with pytest.raises(EdgeNameTaken):
            call()


def test_ten_thousand_updates_are_one_message(task_id: int, hostile: Edge, honest: Edge) -> None:
    """The largest sync, all of it lies, is answered; one update more is refused; an honest edge goes on beside it."""
    grant = hostile.lease(task_id, 10)
    mine = honest.lease(task_id, 10)
    some = IntervalSet.span(0, 1)
    count = MAX_UPDATES
    said = {
        "renew": tuple((task_id, n) for n in range(count)),
        "commits": tuple(LeaseCommit(task_id=task_id, epoch=n + 10_000, done=some) for n in range(count)),
        "returns": tuple(
            LeaseReturn(task_id=n, epoch=grant.epoch, events=some) for n in range(count, 2 * count)
        ),
        "faults": tuple(TaskFault(task_id=n, error="x") for n in range(count, 2 * count)),
        "activity": tuple(TaskActivity(task_id=n, cores=1, cores_busy=1.0) for n in range(count, 2 * count)),
        "tasks": tuple(range(2 * count, 3 * count)),
    }
    reply = hostile.say(**said)
    assert len(reply.commits) == count
    assert not any(result.accepted for result in reply.commits)
    assert len(reply.lost) == count - 1
    with pytest.raises(InvalidValue, match="more than 10000"):
        SyncRequest(instance="hostile-1", tasks=tuple(range(count + 1)))
    assert honest.commit(task_id, mine.epoch, mine.events) == mine.events


def test_a_campaign_beside_a_liar_ends_exact(
    shared: RunningDispatcher, task_id: int, honest: Edge, hostile: Edge
) -> None:
    """An honest edge works through a task while a hostile one takes leases, guesses epochs, replays its own old messages
    and gives back what it does not hold: each event counts once, under the edge that held it."""
    dice = random.Random(3)
    stop = threading.Event()
    stolen: list[IntervalSet] = []
    refused: list[str] = []

    def lie() -> None:
        sent: list[SyncRequest] = []
        while not stop.is_set():
            epoch = dice.randrange(1, 40)
            first = dice.randrange(EVENTS)
            events = IntervalSet.span(first, min(EVENTS, first + dice.randrange(1, 30)))
            commit = LeaseCommit(task_id=task_id, epoch=epoch, done=events, core_seconds=1e12)
            giving = LeaseReturn(task_id=task_id, epoch=dice.randrange(1, 40), events=events)
            sent.append(SyncRequest(instance="hostile-1", commits=(commit,), returns=(giving,)))
            try:
                if dice.random() < 0.1:
                    capacity = Capacity(instance="hostile-1", cores=2, seconds=1.0, task_id=task_id)
                    hostile.client.acquire("hostile", capacity)
                reply = hostile.client.sync("hostile", dice.choice(sent))
            except HpcPandaError as problem:
                refused.append(repr(problem))
            else:
                stolen.extend(result.accepted for result in reply.commits)

    liar = threading.Thread(target=lie)
    liar.start()
    committed = EMPTY
    deadline = time.monotonic() + 40
    with shared.user() as user:
        try:
            while user.task(task_id).state in {TaskState.READY, TaskState.RUNNING}:
                assert time.monotonic() < deadline
                capacity = Capacity(instance="honest-1", cores=5, seconds=1.0, task_id=task_id)
                for grant in honest.client.acquire("honest", capacity).leases:
                    accepted = honest.commit(task_id, grant.epoch, grant.events)
                    assert accepted == grant.events, "an honest edge lost what it held"
                    assert not accepted & committed
                    committed |= accepted
                if len(committed) > EVENTS / 2:
                    stop.set()
                    liar.join()
                    hostile.client.register_edge(
                        "hostile", EdgeRegistration(instance="hostile-1", cores=8, held=())
                    )
        finally:
            stop.set()
            liar.join()
        theirs = IntervalSet.of(r for events in stolen for r in events.ranges())
        assert not refused or all("429" in text or "TooMany" in text for text in refused)
        assert not theirs & committed
        progress = user.task(task_id).progress
        assert progress.done == len(theirs | committed) == EVENTS
