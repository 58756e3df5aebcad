"""A watch keeps windows at hand: aged, not too old, and whatever the batch system does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hpcpanda_edge.windows.ports import Sighting
from hpcpanda_edge.windows.watch import WindowWatch

from hpcpanda.packing.windows import BackfillWindow

HOLE = BackfillWindow(queue=None, nodes=4, seconds=100.0)
OPEN = BackfillWindow(queue=None, nodes=1)


class Machine:
    """A probe that answers when it is let."""

    def __init__(self) -> None:
        self.time = 0.0
        self.answers: asyncio.Queue[Sighting | Exception] = asyncio.Queue()
        self.asked = asyncio.Queue[None]()
        self.watch = WindowWatch(self, every_s=0.0, clock=lambda: self.time)

    async def look(self) -> Sighting:
        self.asked.put_nowait(None)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def answer(self, sighting: Sighting | Exception, *, after_s: float = 0.0) -> None:
        """Answer the question that is open, and wait for the next."""
        await self.asked.get()
        self.time += after_s
        self.answers.put_nowait(sighting)
        while self.asked.empty():
            await asyncio.sleep(0)


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    """A watch that runs."""
    machine = Machine()
    running = asyncio.create_task(machine.watch.run())
    yield machine
    assert not running.done(), "the watch has ended"
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_windows_tell_how_old_they_are(machine: Machine) -> None:
    """From the question on, so that what began meanwhile is known to be younger."""
    assert machine.watch.age_s is None
    await machine.answer(Sighting(windows=(HOLE,)), after_s=3.0)
    assert machine.watch.age_s == 3.0


async def test_nothing_is_known_before_the_first_answer(machine: Machine) -> None:
    """And one can wait for it."""
    assert machine.watch.known is None
    assert not machine.watch.looked.is_set()
    await machine.answer(Sighting(windows=()))
    assert machine.watch.looked.is_set()
    assert machine.watch.known == ()


async def test_windows_shrink_from_the_moment_they_were_asked_for(machine: Machine) -> None:
    """A slow answer is as old as its question; a window that is over is none."""
    await machine.answer(Sighting(windows=(HOLE, OPEN)), after_s=20.0)
    assert [w.seconds for w in machine.watch.known or ()] == [None, 80.0]
    machine.time += 30.0
    assert [w.seconds for w in machine.watch.known or ()] == [None, 50.0]


async def test_a_batch_system_that_hangs_makes_knowledge_older_until_there_is_none(machine: Machine) -> None:
    """After a minute without an answer nothing is known; with the next it is again."""
    await machine.answer(Sighting(windows=(HOLE,)))
    machine.time += 60.0
    assert machine.watch.known is not None
    machine.time += 0.1
    assert machine.watch.known is None
    await machine.answer(Sighting(windows=(OPEN,)))
    await machine.answer(Sighting(windows=(OPEN,)))
    assert machine.watch.known == (OPEN,)


async def test_a_failed_look_leaves_the_last_good_one(machine: Machine) -> None:
    """Neither a reason why nothing is known nor a broken probe ends the watch."""
    await machine.answer(Sighting(windows=(OPEN,)))
    await machine.answer(Sighting(unknown="squeue did not answer within 20 s"))
    await machine.answer(ValueError("a parser that fails"))
    assert machine.watch.known == (OPEN,)
    machine.time += 61.0
    assert machine.watch.known is None
