"""What happens to a campaign while it runs: preemptions, a lost node, a killed edge, a dispatcher that is away."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.support.processes import command_of
from tests.support.services import wait_until
from tests.support.slurm import SlurmCluster
from tests.support.slurm_services import NAME, SlurmServices

RETURN_S: Final = 45.0
"""A lost node is started again after this time; Slurm has noticed by then, which takes it half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How much is to happen, over how many seconds."""

    over_s: float
    """Begins of all that happens lie in this time after the first event or job is done."""
    preemptions: int
    preempted_s: float
    """Longest urgent job."""
    lost_nodes: int
    edge_kills: int = 0
    dispatcher_away_s: float = 0.0


@dataclass(slots=True)
class Storm:
    """Lets things happen at times drawn from a seed; :meth:`blow` does what is due and gives back at once."""

    weather: Weather
    seed: int
    cluster: SlurmCluster
    services: SlurmServices
    urgent: list[int] = field(default_factory=list)
    """Batch jobs that preempted."""
    story: list[str] = field(default_factory=list)
    _began: float = 0.0
    _due: list[tuple[float, str]] = field(default_factory=list)
    _dice: random.Random = field(default_factory=random.Random)

    def begin(self) -> None:
        """Draw what happens when; a plan for the seed that does not depend on how fast this machine is."""
        self._dice.seed(self.seed)
        dice, weather = self._dice, self.weather
        kinds = ["preempt"] * weather.preemptions + ["node"] * weather.lost_nodes
        kinds += ["edge"] * weather.edge_kills + ["dispatcher"] * bool(weather.dispatcher_away_s)
        dice.shuffle(kinds)
        step = weather.over_s / max(1, len(kinds))
        self._due = [(step * (i + dice.uniform(0.1, 0.9)), kind) for i, kind in enumerate(kinds)]
        self._began = time.monotonic()
        self._tell(f"seed {self.seed}: " + ", ".join(f"{kind} at {at:.0f} s" for at, kind in self._due))

    @property
    def over(self) -> bool:
        """Whether all has happened."""
        return not self._due

    def blow(self) -> None:
        """Do what is due."""
        now = time.monotonic() - self._began
        while self._due and self._due[0][0] <= now:
            _, kind = self._due.pop(0)
            {
                "preempt": self._preempt,
                "node": self._lose_node,
                "back": self._return_nodes,
                "edge": self._kill_edge,
                "dispatcher": self._stop_dispatcher,
                "return": self.services.start_dispatcher,
            }[kind]()
            if kind in ("back", "return"):
                self._tell(kind)

    def _later(self, seconds: float, kind: str) -> None:
        self._due.append((time.monotonic() - self._began + seconds, kind))
        self._due.sort()

    def _preempt(self) -> None:
        nodes = self._dice.randint(self.cluster.count // 2, self.cluster.count)
        seconds = self._dice.uniform(2.0, self.weather.preempted_s)
        self.urgent.append(self.cluster.preempt(nodes, seconds))
        self._tell(f"urgent job {self.urgent[-1]} of {nodes} nodes for {seconds:.0f} s")

    def _lose_node(self) -> None:
        """A node that works for an allocation, but does not carry its head, which would be the allocation's end."""
        nodes = self._with_ranks()
        if not nodes:
            self._later(1.0, "node")
            return
        victim = self._dice.choice(nodes)
        self.cluster.kill_node(victim)
        self._tell(f"node {victim} lost")
        self._later(RETURN_S, "back")

    def _with_ranks(self) -> list[str]:
        found = []
        for node in self.cluster.nodes:
            words = [command_of(p) for p in self.cluster.processes(node)]
            if any("hpcpanda.allocation" in w for w in words) and not any(".head" in w for w in words):
                found.append(node)
        return found

    def _return_nodes(self) -> None:
        for node in self.cluster.nodes:
            if self.cluster.daemons[node].poll() is not None:
                self.cluster.start_node(node)

    def _kill_edge(self) -> None:
        self.services.kill("edge")
        away = self._dice.uniform(0.0, 4.0)
        self._tell(f"edge killed, for {away:.1f} s")
        time.sleep(away)
        self.services.start_edge(name=NAME)

    def _stop_dispatcher(self) -> None:
        dispatcher = self.services.started.pop("dispatcher")
        dispatcher.send_signal(signal.SIGTERM)
        dispatcher.wait(timeout=30)
        self._tell(f"dispatcher away for {self.weather.dispatcher_away_s:.0f} s")
        self._later(self.weather.dispatcher_away_s, "return")

    def _tell(self, what: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:6.1f} s  {what}")
        print(self.story[-1], flush=True)


def drive(storm: Storm, ended: Callable[[], bool], *, seconds: float) -> None:
    """Let everything happen and wait for the end of all tasks.

    Raises:
        AssertionError: they did not end in time, or a service died by itself.
    """

    def look() -> None:
        storm.blow()
        for name in list(storm.services.started):
            storm.services.check_alive(name)

    wait_until(lambda: ended() and storm.over, "the end of all tasks", seconds=seconds, on_wait=look)
