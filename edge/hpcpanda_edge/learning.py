"""What the running edge learns of its site, from what it sees anyway: its own records, statuses of heads, and journals.

Nothing is asked of the batch system for it, and of the shared file system only the reports of a few jobs. What was
learnt is kept in the edge's store, at most every half minute: a crash loses no more, and what cannot be read is
learnt anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda.events.bundle import JobReport
from hpcpanda.packing.forecast import Forecast
from hpcpanda.prediction.codec import decode, encode
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.waits import Waiting
from hpcpanda_edge.files import Collected
from hpcpanda_edge.learning_journals import JournalLessons
from hpcpanda_edge.learning_runs import Runs
from hpcpanda_edge.store import Store

SAVE_S: Final = 30.0
"""What was learnt is written no more often."""
FORECAST_S: Final = 5.0
"""How allocations will fare is worked out anew so often."""
TASKS_S: Final = 1.0
"""What work costs is worked out anew so often."""

_log = structlog.get_logger("hpcpanda.edge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What the planner is told of what was learnt."""

    forecast: Forecast = field(default_factory=Forecast)
    job_seconds: Mapping[int, float] = field(default_factory=dict)
    """By task: the walltime of a job at the stated risk; only where enough scouts have been seen."""
    event_seconds: Mapping[int, float] = field(default_factory=dict)
    """By task: core-seconds of an event, or a job."""


def read_knowledge(store: Store, now: float) -> Knowledge:
    """What an edge has learnt, as it last wrote it; nothing when that cannot be understood."""
    if (kept := store.learnt) is None:
        return Knowledge.fresh(now)
    try:
        return decode(kept)
    except CorruptData as problem:
        _log.warning("learning-starts-afresh", error=str(problem))
        return Knowledge.fresh(now)


def predict_work(knowledge: Knowledge, store: Store, now: float) -> Predictions:
    """What the work at hand costs, as far as it was measured; nothing of how allocations fare."""
    scale = knowledge.decay.weight(now)
    known = {t: knowledge.tasks[t] for t in store.tasks if t in knowledge.tasks}
    jobs = {
        t: seconds
        for t, task in known.items()
        if not task.scouts_missing(knowledge.risk, scale)
        and (seconds := task.job_seconds(knowledge.risk, scale)) is not None
    }
    costs = {t: seconds for t, task in known.items() if (seconds := task.event_seconds(scale))}
    return Predictions(job_seconds=jobs, event_seconds=costs)


def predict_allocations(knowledge: Knowledge, store: Store, site: Site, now: float) -> Forecast:
    """How allocations will fare that are asked for now."""
    waiting = [
        Waiting(nodes=r.nodes, walltime_s=r.walltime_s, seconds=now - r.created)
        for r in store.allocations.values()
        if r.state is AllocationState.QUEUED and r.life < 0 and not r.in_window
    ]
    return knowledge.forecast(now, waiting, partition=site.scheduler.queue or "")


def predict(knowledge: Knowledge, store: Store, site: Site, now: float) -> Predictions:
    """What to tell the planner now."""
    forecast = predict_allocations(knowledge, store, site, now)
    return replace(predict_work(knowledge, store, now), forecast=forecast)


class Learner:
    """Keeps what is learnt, and hands it what there is to learn from."""

    def __init__(self, store: Store, spool: Spool, site: Site, now: float) -> None:
        self.knowledge = read_knowledge(store, now)
        self._store = store
        self._site = site
        self._runs = Runs(self.knowledge, site)
        self._lessons = JournalLessons(self.knowledge, store, spool)
        self._saved = now
        self._dirty = False
        self._forecast: tuple[float, Forecast] | None = None
        self._predicted: tuple[float, Predictions] | None = None

    def predictions(self, now: float) -> Predictions:
        """What to tell the planner."""
        if self._forecast is None or not 0 <= now - self._forecast[0] < FORECAST_S:
            self._forecast = now, predict_allocations(self.knowledge, self._store, self._site, now)
        if self._predicted is None or not 0 <= now - self._predicted[0] < TASKS_S:
            self._predicted = now, predict_work(self.knowledge, self._store, now)
        return replace(self._predicted[1], forecast=self._forecast[1])

    def save(self, now: float, *, at_once: bool = False) -> None:
        """Keep what was learnt, if it is time.

        Raises:
            Unavailable: the disk refuses; the next call tries again.
        """
        if self._dirty and (at_once or not 0 <= now - self._saved < SAVE_S):
            self._store.keep_learnt(encode(self.knowledge))
            self._saved = now
            self._dirty = False

    def look(self, statuses: Mapping[str, AllocationStatus], now: float) -> None:
        """Learn from what has become of allocations since the last look."""
        self._dirty |= self._runs.look(self._store.allocations, statuses, now)

    def saw(self, found: Collected, reports: Sequence[tuple[int, JobReport]], now: float) -> None:
        """Learn from what journals newly say, and from reports of jobs that they tell of."""
        self._dirty |= self._lessons.saw(found, now)
        self._lessons.saw_reports(reports, now)

    def reports_of(self, found: Collected) -> list[tuple[int, JobReport]]:
        """The reports of a few of the jobs that journals newly tell of. Reads files: call it in a thread."""
        return self._lessons.reports_of(found)
