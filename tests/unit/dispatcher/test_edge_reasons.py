"""What edges say of why a task is where it is reaches the user who asks, and only while it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from typer.testing import CliRunner

from hpcpanda.client import task_commands
from hpcpanda.client.cli import app
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import cancel_task, submit_task
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import EdgeRegistration, SyncRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.site_report import MAX_REASONS, TaskReason
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.task_views import EdgeReason, Explanation
from hpcpanda.domain.why import Why

NOW = 1e9
WHY = Why(code="node-limit", sentence="It needs a node; 4 of the 4 nodes are in use.", numbers={"nodes": 4.0})
SPEC = TaskSpec(
    name="t",
    payload=CommandPayload(command=("a", "{output}")),
    output=Output(file="out.zip", format=OutputFormat.ZIP),
    events=10,
)


class Bench:
    """A dispatcher's use cases, and an edge that says what it is told to say."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.store = Store(database)
        self.terms = Terms()

    async def submit(self) -> int:
        task = await submit_task(self.store.writing(), spec=SPEC, owner="ada", idempotency_key=None, now=NOW)
        return task.task_id

    async def register(self, name: str) -> None:
        registration = EdgeRegistration(instance=name, cores=8)
        await register_edge(
            self.store.writing(), name=name, registration=registration, terms=self.terms, now=NOW
        )

    async def say(self, edge: str, reasons: tuple[TaskReason, ...] | None, *, at: float = NOW) -> None:
        request = SyncRequest(instance=edge, reasons=reasons)
        await sync_edge(self.store.writing(), edge=edge, request=request, terms=self.terms, now=at)

    async def told(self, task_id: int, *, at: float = NOW) -> tuple[EdgeReason, ...]:
        return (await explain_task(self.store.reading(), task_id=task_id, terms=self.terms, now=at)).edges


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    made = Bench(database)
    for name in ("e", "f"):
        await made.register(name)
    yield made
    await database.close()


async def test_the_reasons_of_all_edges_are_told_with_their_age(bench: Bench) -> None:
    """By name; code, sentence and numbers as they were said."""
    task_id = await bench.submit()
    reason = TaskReason(task_id=task_id, why=WHY)
    await bench.say("f", (reason,), at=NOW - 20)
    await bench.say("e", (reason,), at=NOW - 5)
    assert await bench.told(task_id) == (
        EdgeReason(edge="e", why=WHY, ago_s=5.0),
        EdgeReason(edge="f", why=WHY, ago_s=20.0),
    )


async def test_a_later_word_takes_the_place_of_an_earlier_one(bench: Bench) -> None:
    """All of an edge's at once; nothing said changes nothing; a task that nobody knows is left out."""
    one, two = await bench.submit(), await bench.submit()
    await bench.say("e", (TaskReason(task_id=one, why=WHY), TaskReason(task_id=99, why=WHY)))
    await bench.say("e", None)
    assert len(await bench.told(one)) == 1
    other = replace(WHY, code="no-window")
    await bench.say("e", (TaskReason(task_id=two, why=other),))
    assert await bench.told(one) == ()
    assert [r.why.code for r in await bench.told(two)] == ["no-window"]


async def test_old_reasons_and_those_of_a_task_that_is_over_are_not_told(bench: Bench) -> None:
    """An edge that is silent for longer than it counts as alive says nothing any more."""
    task_id = await bench.submit()
    await bench.say("e", (TaskReason(task_id=task_id, why=WHY),))
    assert await bench.told(task_id, at=NOW + bench.terms.edge_alive_seconds + 1) == ()
    assert len(await bench.told(task_id)) == 1
    await cancel_task(bench.store.writing(), task_id=task_id, caller="ada", now=NOW)
    assert await bench.told(task_id) == ()


@pytest.mark.parametrize(
    "why",
    [
        replace(WHY, code="x" * 65),
        replace(WHY, sentence="x" * 4001),
        replace(WHY, numbers={str(n): 0.0 for n in range(33)}),
        replace(WHY, numbers={"x" * 65: 0.0}),
        replace(WHY, numbers={"x": float("inf")}),
    ],
)
def test_a_reason_is_bounded(why: Why) -> None:
    """An edge cannot fill the store with words."""
    with pytest.raises(InvalidValue):
        TaskReason(task_id=1, why=why)


def test_reasons_are_bounded_in_number() -> None:
    """So is a message."""
    reason = TaskReason(task_id=1, why=WHY)
    with pytest.raises(InvalidValue, match="reasons"):
        SyncRequest(instance="e", reasons=(reason,) * (MAX_REASONS + 1))


class Answers:
    """A connection that gives one explanation."""

    def open(self) -> Answers:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def explain(self, task_id: int) -> Explanation:
        return Explanation(
            task_id=task_id,
            state=TaskState.READY,
            reasons=("10 events are ready.",),
            edges=(EdgeReason(edge="e", why=WHY, ago_s=3.0),),
        )


def test_the_command_line_tells_what_edges_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the dispatcher's own reasons, each with the edge's name and the code; in JSON with the numbers."""
    original = task_commands.CliContext.of

    def of(*words: object) -> object:
        return replace(original(*words), connection=Answers())  # type: ignore[arg-type]

    monkeypatch.setattr(task_commands.CliContext, "of", of)
    found = CliRunner().invoke(app, ["task", "explain", "7"])
    assert found.exit_code == 0, found.output
    assert found.output.splitlines() == [
        "task 7 is ready",
        "- 10 events are ready.",
        "- edge e (node-limit): It needs a node; 4 of the 4 nodes are in use.",
    ]
    found = CliRunner().invoke(app, ["task", "explain", "7", "--output", "json"])
    assert '"nodes": 4.0' in found.output
