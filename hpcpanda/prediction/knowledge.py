"""Everything that was learnt of a site: the one object that the edge, or a simulation, tells what it sees and asks. Pure.

Times are Unix seconds, of any clock that goes on; every call says its own. What is seen counts half after a half-life.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between
from hpcpanda.packing.forecast import Forecast
from hpcpanda.packing.tables import Floats
from hpcpanda.prediction.decay import FORGOTTEN, HALF_LIFE_S, REBASE, Decay
from hpcpanda.prediction.hazard import Hazard
from hpcpanda.prediction.reservations import Reservations, plan_reservations
from hpcpanda.prediction.sketch import Sketch
from hpcpanda.prediction.tasks import Calibration, JobEnd, TaskKnowledge, TaskWords
from hpcpanda.prediction.waits import QueueWaits, Waiting, shape_class

RISK: Final = 0.1
"""Of a job to exceed its predicted walltime, where nothing else is said."""
MOST_TASKS: Final = 200
"""The task that was not seen for longest is forgotten for one more."""
MOST_PARTITIONS: Final = 64
AHEAD_S: Final = 4 * 3600.0
"""A forecast is for so long."""
_MOST: Final = 1e6
"""Neither a start-up in seconds nor a hazard is forecast to be more."""
_START_UP_SHARE: Final = 0.9
"""Of start-ups that take no longer than forecast."""


@dataclass(slots=True, kw_only=True)
class Knowledge:
    """What was learnt of a site."""

    decay: Decay
    risk: float = RISK
    """For which promises are made and held against what is seen."""
    tasks: dict[int, TaskKnowledge] = field(default_factory=dict)
    """By the task's number; the one last seen is last."""
    hazards: dict[str, Hazard] = field(default_factory=dict)
    """By partition; the batch system's default one is ''."""
    waits: QueueWaits = field(default_factory=QueueWaits)
    start_up: Sketch = field(default_factory=Sketch)
    """Seconds from the begin of an allocation to its first event."""
    calibration: Calibration = field(default_factory=Calibration)
    """Of promises for jobs of all tasks, forgotten ones too."""

    def __post_init__(self) -> None:
        require_between("risk", self.risk, 1e-6, 1 - 1e-6)

    @classmethod
    def fresh(cls, at: float, *, half_life_s: float = HALF_LIFE_S) -> Knowledge:
        """Nothing is known yet."""
        return cls(decay=Decay(landmark=at, half_life_s=half_life_s))

    # ---- seeing ----

    def meet(self, task: int, words: TaskWords, at: float) -> None:
        """Note what the user says of a task."""
        self._task(task, at).words = words

    def saw_events(
        self, task: int, counts: Sequence[float] | Floats, core_seconds: Sequence[float] | Floats, at: float
    ) -> None:
        """Ranges of events were finished.

        Args:
            task: whose.
            counts: events of each range.
            core_seconds: that each range took as a whole.
            at: when.

        Raises:
            InvalidValue: a range has no events, or a time is none.
        """
        number, took = np.asarray(counts, dtype=np.float64), np.asarray(core_seconds, dtype=np.float64)
        if len(number) != len(took) or not (number >= 1).all():
            raise InvalidValue(
                "counts", "each range needs a number of events, at least 1, and its core-seconds"
            )
        if len(number):
            self._task(task, at).saw_events(number, took, self._weight(at))

    def saw_jobs(
        self, task: int, seconds: Sequence[float] | Floats, at: float, end: JobEnd = JobEnd.ENDED
    ) -> None:
        """Jobs ended alike, each after so many seconds.

        Raises:
            InvalidValue: a time is none.
        """
        took = np.asarray(seconds, dtype=np.float64)
        if not (np.isfinite(took).all() and (took >= 0).all()):
            raise InvalidValue("seconds", "one is negative or not a number, which no time can be")
        if not len(took):
            return
        known = self._task(task, at)
        before = replace(known.calibration)
        known.saw_jobs(took, end, self._weight(at), self.risk)
        self.calibration.add_change(before, known.calibration)

    def saw_memory(self, task: int, memory_mb: float, at: float, end: JobEnd = JobEnd.ENDED) -> None:
        """A job used so much memory at its peak, MiB; one killed for it would have used more.

        Raises:
            InvalidValue: it is negative or not a number.
        """
        self._task(task, at).saw_memory(memory_mb, end, self._weight(at))

    def saw_allocation(
        self, nodes: int, walltime_s: float, queued_s: float, at: float, *, started: bool = True
    ) -> None:
        """An allocation left the queue after so long; not ``started``: it was taken out of it.

        Raises:
            InvalidValue: the shape or the time is none.
        """
        waits = self.waits.of(shape_class(nodes, walltime_s))
        (waits.ended if started else waits.censored).add(max(0.0, queued_s), self._weight(at))

    def saw_start_up(self, seconds: float, at: float) -> None:
        """An allocation began, and after so long its first event.

        Raises:
            InvalidValue: the time is none.
        """
        self.start_up.add(max(0.0, seconds), self._weight(at))

    def saw_held(self, nodes: int, since: float, until: float, partition: str = "") -> None:
        """So many nodes were held from one time to another.

        Raises:
            InvalidValue: there are no nodes, or the time is none.
        """
        self._hazard(partition).hold(nodes, since, until, self._weight(until))

    def saw_preemption(self, at: float, partition: str = "") -> None:
        """An allocation was preempted, or lost a node."""
        self._hazard(partition).preempt(at, self._weight(at))

    # ---- telling ----

    def forecast(
        self, at: float, waiting: Sequence[Waiting] = (), *, partition: str = "", ahead_s: float = AHEAD_S
    ) -> Forecast:
        """How allocations will fare that are asked for now.

        Args:
            at: now.
            waiting: allocations that are queued now; they tell that waits are longer than that.
            partition: in which they run.
            ahead_s: time over which the hazard is averaged, seconds.
        """
        scale = self.decay.weight(at)
        hazard = self.hazards.get(partition) or Hazard()
        return Forecast(
            startup_s=min(self.start_up.quantile(_START_UP_SHARE) or 0.0, _MOST),
            preemptions_per_node_hour=min(hazard.rate(at, ahead_s, scale), _MOST),
            queue_waits=self.waits.forecast(scale, waiting),
        )

    def event_seconds(self, task: int, at: float) -> float | None:
        """Core-seconds of an event of the task; None when nothing is known."""
        known = self.tasks.get(task)
        return None if known is None else known.event_seconds(self.decay.weight(at))

    def job_seconds(self, task: int, at: float, risk: float | None = None) -> float | None:
        """Walltime that a job of the task exceeds with no more than this probability; see :class:`TaskKnowledge`."""
        known = self.tasks.get(task)
        return None if known is None else known.job_seconds(risk or self.risk, self.decay.weight(at))

    def memory_mb(self, task: int, at: float, risk: float | None = None) -> float | None:
        """Memory that a job of the task exceeds with no more than this probability, MiB."""
        known = self.tasks.get(task)
        return None if known is None else known.memory_mb(risk or self.risk, self.decay.weight(at))

    def reservations(self, task: int) -> Reservations | None:
        """The walltimes to ask for, one after the other, that waste least; None without a limit or a finished job."""
        known = self.tasks.get(task)
        if known is None or known.words.walltime_s is None:
            return None
        return plan_reservations(known.walltimes, known.words.walltime_s)

    # ---- keeping ----

    def _task(self, task: int, at: float) -> TaskKnowledge:
        """What is known of a task, to be added to; it is the one last seen."""
        known = self.tasks.pop(task, None) or TaskKnowledge()
        known.last_seen = max(known.last_seen, at)
        self.tasks[task] = known
        if len(self.tasks) > MOST_TASKS:
            del self.tasks[next(iter(self.tasks))]
        return known

    def _hazard(self, partition: str) -> Hazard:
        if partition not in self.hazards and len(self.hazards) >= MOST_PARTITIONS:
            del self.hazards[next(iter(self.hazards))]
        return self.hazards.setdefault(partition, Hazard())

    def _weight(self, at: float) -> float:
        """The weight of what is seen at a time; all weights are scaled down before it becomes too large."""
        weight = self.decay.weight(at)
        if weight <= REBASE:
            return weight
        for known in self.tasks.values():
            known.scale(1 / weight, FORGOTTEN)
        for hazard in self.hazards.values():
            hazard.scale(1 / weight)
        self.waits.scale(1 / weight, FORGOTTEN)
        self.start_up.scale(1 / weight, FORGOTTEN)
        self.decay = replace(self.decay, landmark=at)
        return 1.0
