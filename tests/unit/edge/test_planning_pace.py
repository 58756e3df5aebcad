"""When a round makes a new plan: when something was looked at or has changed, and now and then all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hpcpanda_edge import control
from hpcpanda_edge.control import Control
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.windows.choose import make_window_probe
from hpcpanda_edge.windows.watch import WindowWatch
from support.edge import FakeScheduler, small_site
from support.edge_books import fresh

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.planning.actions import Plan
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import Situation


class Rounds:
    """An edge whose rounds are made one by one, with all the files looked at for a long time to come."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plans = 0
        site = small_site(folder / "spool", nodes=1)
        spool = Spool(Path(site.spool))
        spool.path.mkdir()
        self.store = fresh(folder / "edge.db")
        windows = WindowWatch(make_window_probe(site), every_s=1.0)
        self.control = Control(self.store, spool, site, FakeScheduler(), windows, Stager(spool, site))
        monkeypatch.setattr(control, "make_plan", self._plan)
        monkeypatch.setattr(control, "PLAN_S", 1e9)
        monkeypatch.setattr(Control, "_files", lambda _: 10**9)

    def _plan(self, situation: Situation) -> Plan:
        self.plans += 1
        return make_plan(situation)

    async def until_quiet(self) -> None:
        """Make rounds until nothing changes any more, which is soon."""
        for _ in range(10):
            before = self.plans
            await self.control.round()
            if self.plans == before:
                return
        raise AssertionError("there is a new plan in every round")


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    return Rounds(tmp_path, monkeypatch)


def change_a_row(rounds: Rounds) -> None:
    """As when the dispatcher has answered, or the batch system has said something."""
    with rounds.store.transaction():
        rounds.store.tasks.put(rounds.store.tasks[1])


def begin_to_drain(rounds: Rounds) -> None:
    """As a signal does, or `hpcpanda-edge drain`."""
    rounds.control.draining = True


def stage(rounds: Rounds) -> None:
    """As when an input has arrived."""
    rounds.control.steps.staged[7] = IntervalSet.span(0, 1)


def refuse(rounds: Rounds) -> None:
    """As when the batch system has refused a submission."""
    rounds.control.submitter.not_before = 2e9


def look_again(rounds: Rounds) -> None:
    """It is time to read statuses and journals."""
    rounds.control._look_again = 0.0


@pytest.mark.parametrize("what", [change_a_row, begin_to_drain, stage, refuse, look_again])
async def test_a_plan_is_made_when_there_is_something_new(
    rounds: Rounds, what: Callable[[Rounds], None]
) -> None:
    """Rounds in which nothing is new make no plan; the first after something new makes one."""
    await rounds.until_quiet()
    before = rounds.plans
    for _ in range(3):
        await rounds.control.round()
    assert rounds.plans == before
    what(rounds)
    await rounds.control.round()
    assert rounds.plans == before + 1


async def test_time_alone_calls_for_a_plan(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines and pauses end without anybody saying so: after a while there is a new plan."""
    await rounds.until_quiet()
    before = rounds.plans
    monkeypatch.setattr(control, "PLAN_S", 0.0)
    await rounds.control.round()
    assert rounds.plans == before + 1


async def test_a_plan_that_could_not_be_entered_is_made_again(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses does not make the edge believe that it has planned."""
    await rounds.until_quiet()
    change_a_row(rounds)
    monkeypatch.setattr(rounds.control._outlook, "note", _full_disk)
    with pytest.raises(OSError, match="full"):
        await rounds.control.round()
    monkeypatch.undo()
    monkeypatch.setattr(control, "PLAN_S", 1e9)
    monkeypatch.setattr(Control, "_files", lambda _: 10**9)
    made: list[Situation] = []
    monkeypatch.setattr(control, "make_plan", lambda s: made.append(s) or make_plan(s))
    await rounds.control.round()
    assert len(made) == 1


def _full_disk(*_: object) -> None:
    raise OSError("the disk is full")
