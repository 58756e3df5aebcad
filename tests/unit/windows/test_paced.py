"""A probe asks seldom, ages what it was told, and never raises."""

from __future__ import annotations

import asyncio

from hpcpanda_edge.windows.choose import make_window_probe
from hpcpanda_edge.windows.none import NoProbe
from hpcpanda_edge.windows.paced import PacedProbe

from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.site import NodeSettings, SchedulerSettings, Site
from hpcpanda.packing.windows import BackfillWindow


class Machine:
    """A reader with a clock, that counts how often it was asked."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.asked = 0
        self.fails = False
        self.windows = (
            BackfillWindow(queue=None, nodes=4, seconds=1000.0),
            BackfillWindow(queue=None, nodes=1),
        )

    def clock(self) -> float:
        return self.time

    async def read(self) -> tuple[BackfillWindow, ...]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise Unavailable("squeue did not answer within 20 s")
        return self.windows

    def probe(self) -> PacedProbe:
        return PacedProbe(self, every_s=60.0, clock=self.clock)


async def test_the_batch_system_is_asked_once_in_a_while() -> None:
    """However often, and from however many sides, windows are looked at, the programs run once a minute."""
    machine = Machine()
    probe = machine.probe()
    await asyncio.gather(*(probe.look() for _ in range(50)))
    machine.time += 59.0
    await probe.look()
    assert machine.asked == 1
    machine.time += 1.0
    await probe.look()
    assert machine.asked == 2


async def test_windows_shrink_between_two_questions() -> None:
    """An answer told again is aged, ends rounded down to minutes, until the window is over."""
    machine = Machine()
    probe = machine.probe()
    assert [w.seconds for w in await probe.look()] == [None, 960.0]
    machine.time += 59.0
    assert [w.seconds for w in await probe.look()] == [None, 900.0]


async def test_failures_are_reasons_and_do_not_hurry_the_next_question() -> None:
    """A batch system in trouble is asked no more often than a healthy one, and what it says is passed on."""
    machine = Machine()
    machine.fails = True
    probe = machine.probe()
    sighting = await probe.look()
    assert sighting.known is None
    assert sighting.unknown == "squeue did not answer within 20 s"
    assert not sighting
    machine.fails = False
    assert (await probe.look()).known is None
    machine.time += 60.0
    assert (await probe.look()).known
    assert machine.asked == 2


async def test_nothing_free_is_something_known() -> None:
    """An empty machine and a silent one are told apart."""
    machine = Machine()
    machine.windows = ()
    assert (await machine.probe().look()).known == ()
    assert (await NoProbe().look()).known is None


async def test_a_site_gets_the_probe_of_its_batch_system() -> None:
    """Executors without a probe get one that says so."""

    def site(executor: str) -> Site:
        nodes = NodeSettings(count=1, cores=1, memory_mb=64)
        return Site(name="s", spool="/s", nodes=nodes, scheduler=SchedulerSettings(executor=executor))

    for executor in ("slurm", "pbs", "lsf"):
        assert isinstance(make_window_probe(site(executor)), PacedProbe)
    assert "'local'" in ((await make_window_probe(site("local")).look()).unknown or "")
