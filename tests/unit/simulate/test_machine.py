"""The machines towards our allocations, on days small enough to follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.easy import EasyMachine
from hpcpanda.simulate.machines.figures import host_figures
from hpcpanda.simulate.machines.host_alone import host_schedule
from hpcpanda.simulate.machines.host_machine import Allocation, MachineOptions
from hpcpanda.simulate.machines.preempting import PreemptingMachine, victims
from hpcpanda.simulate.machines.truthful import TruthfulMachine
from hpcpanda.simulate.ports import AllocationEvent, BatchSystem
from tests.support.host_jobs import Job, trace_of, until

DAY: Sequence[Job] = [(0, 6, 40, 100), (1, 10, 50, 50)]
"""Six nodes until 40, although requested until 100; then all of them."""


def told(events: Sequence[AllocationEvent]) -> list[tuple[float, int, str]]:
    """Events as tuples."""
    return [(e.at, e.allocation, e.what) for e in events]


def window(nodes: int, seconds: float | None) -> BackfillWindow:
    """In the default queue."""
    return BackfillWindow(queue=None, nodes=nodes, seconds=seconds)


def truthful(jobs: Sequence[Job], options: MachineOptions | None = None) -> TruthfulMachine:
    """A machine that knows the future."""
    trace = trace_of(jobs)
    return TruthfulMachine(trace, host_schedule(trace), options or MachineOptions(horizon_s=1000))


def test_machines_are_batch_systems() -> None:
    """All three fit the port that the simulated edge is driven through."""
    trace = trace_of(DAY)
    systems: list[BatchSystem] = [
        truthful(DAY),
        EasyMachine(trace, MachineOptions()),
        PreemptingMachine(trace, MachineOptions()),
    ]
    assert [s.now for s in systems] == [0, 0, 0]


def test_truthful_windows_end_when_the_host_really_comes() -> None:
    """The request of 100 s is not believed: the six nodes come back at 40, when all ten are taken."""
    machine = truthful(DAY)
    machine.advance(1)
    assert machine.windows() == (window(4, 39),)
    assert machine.next_change() == 90
    assert machine.submit(4, 39) == 0
    assert told(until(machine, 100)) == [(1, 0, "started"), (40, 0, "killed")]
    assert machine.allocations[0].fate == "killed"
    assert machine.windows() == (window(10, 1000),)


def test_truthful_requests_wait_for_a_hole_that_is_long_enough() -> None:
    """What would be in the host's way waits; what fits overtakes it; what we give back is used again."""
    machine = truthful(DAY)
    machine.advance(1)
    machine.submit(4, 40)
    machine.submit(3, 30)
    machine.submit(2, 30)
    assert told(machine.advance(5)) == [(1, 1, "started")]
    assert machine.advance(5) == ()
    machine.end(1)
    assert told(until(machine, 200)) == [
        (5, 1, "ended"),
        (5, 2, "started"),
        (35, 2, "killed"),
        (90, 0, "started"),
        (130, 0, "killed"),
    ]


def test_easy_windows_end_at_the_reservation() -> None:
    """EASY believes the request: the four nodes are free until 100, when the waiting job has all of them."""
    machine = EasyMachine(trace_of(DAY), MachineOptions())
    machine.advance(0.5)
    assert machine.windows() == (window(4, None),)
    machine.advance(1)
    assert machine.windows() == (window(4, 99),)
    assert machine.next_change() == 40


def test_easy_delays_the_host_when_a_job_ends_early() -> None:
    """Our allocation fits by the estimates, runs to its wall, and the job that could have started at 40 starts at 60."""
    trace = trace_of(DAY)
    machine = EasyMachine(trace, MachineOptions())
    machine.advance(1)
    machine.submit(4, 59)
    assert told(until(machine, 70)) == [(1, 0, "started"), (60, 0, "killed")]
    after = machine.finish()
    assert after.start.tolist() == [0, 60]
    found = host_figures(trace, host_schedule(trace), after, span=(0, 100), useful_node_s=4 * 50)
    assert (found.delayed_jobs, found.delay_mean_s, found.delay_max_s) == (1, 10, 20)
    assert found.utilisation_before == (6 * 40 + 10 * 50) / 1000
    assert found.utilisation_after == (6 * 40 + 10 * 40 + 200) / 1000


def test_easy_starts_the_host_at_once_when_we_end() -> None:
    """Nodes given back go to the host's first waiting job at that instant, before any window is told."""
    machine = EasyMachine(trace_of(DAY), MachineOptions())
    machine.advance(1)
    machine.submit(4, 90)
    until(machine, 55)
    machine.end(0)
    assert machine.windows() == ()
    assert told(machine.advance(70)) == [(55, 0, "ended")]
    assert machine.host().start.tolist() == [0, 55]


def test_preemption_ends_us_after_the_grace_time() -> None:
    """SIGTERM when the host's job could start without us, SIGKILL after the grace time, and then the job starts."""
    trace = trace_of(DAY)
    machine = PreemptingMachine(trace, MachineOptions(grace_s=7))
    machine.advance(1)
    machine.submit(4, 90)
    assert told(until(machine, 200)) == [(1, 0, "started"), (40, 0, "preempted"), (47, 0, "killed")]
    assert machine.finish().start.tolist() == [0, 47]


def test_a_preempted_allocation_may_end_before_the_grace_time() -> None:
    """The host's job starts when the last of ours has drained."""
    machine = PreemptingMachine(trace_of(DAY), MachineOptions(grace_s=7))
    machine.advance(1)
    machine.submit(4, 90)
    until(machine, 40)
    machine.advance(42)
    assert machine.windows() == ()
    machine.end(0)
    assert told(until(machine, 200)) == [(42, 0, "ended")]
    assert machine.finish().start.tolist() == [0, 42]


def test_grace_times_of_host_jobs_that_follow_each_other_do_not_add_up() -> None:
    """A chain of host jobs, each of which preempts us, is late by one grace time, not by one more each."""
    trace = trace_of([(0, 6, 20, 20), *[(1, 7 + k, 20, 20) for k in range(4)]])
    machine = PreemptingMachine(trace, MachineOptions(grace_s=5))
    machine.advance(1)
    for _ in range(3):
        machine.submit(1, 1000)
    events = told(until(machine, 500))
    assert [at for at, _, what in events if what == "preempted"] == [40, 60, 80]
    alone = host_schedule(trace).start
    assert (machine.finish().start - alone).tolist() == [0, 0, 5, 5, 5]


def running(*nodes: int) -> list[Allocation]:
    """Allocations that started one second after the other."""
    return [
        Allocation(number=k, nodes=n, walltime_s=100, submitted=0, start=float(k))
        for k, n in enumerate(nodes)
    ]


@pytest.mark.parametrize(
    ("nodes", "needed", "chosen"),
    [((4, 3, 2), 1, [2]), ((4, 3, 2), 3, [1]), ((4, 3, 2), 5, [2, 1]), ((1, 9, 1, 1), 10, [3, 1])],
)
def test_victims_are_the_youngest_and_no_more_than_needed(
    nodes: tuple[int, ...], needed: int, chosen: list[int]
) -> None:
    """From the youngest on until it is enough; of these the oldest that can be spared are."""
    assert [v.number for v in victims(running(*nodes), needed)] == chosen


def test_who_was_told_to_go_is_no_victim_again() -> None:
    """Nodes that are being given back already are not counted twice."""
    ours = running(4, 3)
    ours[1].preempted = True
    assert [v.number for v in victims(ours, 1)] == [0]


def test_requests_are_looked_at_once_a_cycle() -> None:
    """A request made between two looks starts at the second, whatever the machine."""
    options = MachineOptions(cycle_s=30)
    trace = trace_of([(0, 6, 400, 400)])
    for machine in (truthful([(0, 6, 400, 400)], options), EasyMachine(trace, options)):
        machine.advance(31)
        machine.submit(4, 100)
        assert told(machine.advance(300)) == [(60, 0, "started")]


def test_node_failures_kill_at_the_rate_told() -> None:
    """Of many allocations as many lose a node as the hazard says; the same seed kills the same ones."""
    rate, hours, nodes = 0.02, 5.0, 2

    def killed(seed: int) -> list[float]:
        machine = truthful(
            [(0, 10, 1, 1)], MachineOptions(failures_per_node_hour=rate, horizon_s=1e6, seed=seed)
        )
        machine.advance(1)
        ends = []
        for _ in range(400):
            number = machine.submit(nodes, hours * 3600)
            machine.advance(machine.now)
            machine.advance(float("inf"))
            ours = machine.allocations[number]
            ends.append(ours.end - ours.start)
        return ends

    ends = killed(3)
    failed = np.mean(np.array(ends) < hours * 3600 - 1)
    expected = 1 - np.exp(-rate * nodes * hours)
    assert abs(failed - expected) < 4 * np.sqrt(expected * (1 - expected) / 400)
    assert killed(3) == ends
    assert killed(4) != ends


def test_ending_twice_and_asking_for_the_impossible() -> None:
    """An allocation that has ended is left alone; a request that can never start is refused."""
    machine = truthful(DAY)
    machine.submit(1, 10)
    machine.end(0)
    machine.end(0)
    assert told(machine.advance(5)) == [(0, 0, "ended")]
    assert machine.allocations[0].fate == "cancelled"
    with pytest.raises(InvalidValue, match="nodes"):
        machine.submit(11, 10)
    with pytest.raises(InvalidValue, match="walltime_s"):
        machine.submit(1, 0)
