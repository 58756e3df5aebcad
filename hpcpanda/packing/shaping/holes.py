"""Holes of one queue while requests are cut out of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hpcpanda.packing.shaping.cover import Step
from hpcpanda.packing.shaping.rules import RequestRules
from hpcpanda.packing.shaping.value import Prospect
from hpcpanda.packing.shaping.work import Demand, Held
from hpcpanda.packing.windows import BackfillWindow


class Holes:
    """Nodes by the time for which they are free, the longest first."""

    def __init__(self, windows: Iterable[BackfillWindow], rules: RequestRules) -> None:
        self._rules = rules
        nodes: dict[float, int] = {}
        for window in windows:
            if window.queue == rules.queue:
                nodes[window.length] = nodes.get(window.length, 0) + window.nodes
        self.left = sorted(nodes.items(), reverse=True)
        """Length and nodes."""

    def hold(self, held: Sequence[Held]) -> None:
        """Take away what allocations are going to have, or have already, that the windows do not know of."""
        for h in sorted(held, key=lambda h: (-h.seconds, -h.nodes)):
            if h.queue != self._rules.queue or not (h.queued or h.unseen):
                continue
            if h.unseen or h.in_window or self.nodes_for(h.seconds) >= h.nodes:
                self.take(h.nodes, h.seconds)

    def nodes_for(self, seconds: float) -> int:
        """Nodes that are free together for so long."""
        return sum(n for length, n in self.left if length >= seconds)

    def take(self, nodes: int, seconds: float) -> None:
        """Use nodes for so long: those of the shortest holes that are long enough.

        What exceeds them is taken from longer to shorter ones below, as the batch system might have placed it there.
        """
        fitting = [i for i, (length, _) in enumerate(self.left) if length >= seconds]
        below = range(len(fitting), len(self.left))
        for i in [*reversed(fitting), *below]:
            length, there = self.left[i]
            taken = min(nodes, there)
            self.left[i] = (length, there - taken)
            nodes -= taken
        self.left = [(length, n) for length, n in self.left if n]

    def steps(self, demand: Demand, prospect: Prospect) -> tuple[Step, ...]:
        """What allocations could be made of them; holes for which the same walltime is asked for are one step."""
        steps: list[Step] = []
        for length, nodes in self.left:
            walltime = self._rules.in_window(length) or 0.0
            life = min(walltime, length)
            cut = life < walltime
            alike = 0
            if steps and (steps[-1].walltime_s, steps[-1].life) == (walltime, life):
                alike = steps.pop().nodes
            takers = demand.takers(prospect.fit_s(life, cut=cut)) if walltime else 0
            steps.append(
                Step(
                    nodes=nodes + alike, length=length, walltime_s=walltime, life=life, cut=cut, takers=takers
                )
            )
        return tuple(steps)

    def window(self, nodes: int, length: float) -> BackfillWindow:
        """So many nodes as a window."""
        return BackfillWindow(
            queue=self._rules.queue, nodes=nodes, seconds=None if length == float("inf") else length
        )
