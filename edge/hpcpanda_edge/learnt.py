"""What was learnt of a site, as `explain` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpcpanda.client.output import duration
from hpcpanda.domain.site import Site
from hpcpanda.packing.forecast import QueueWait
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.tasks import Calibration, JobEnd, TaskKnowledge
from hpcpanda_edge.learning import predict_allocations
from hpcpanda_edge.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntPromises:
    """How far promised walltimes of jobs held; each was made before the job it is held against ended."""

    jobs: int
    """For which something was promised that is less than the user's limit."""
    risk: float
    """Share that was promised to take longer."""
    exceeded_share: float | None
    """Share that did."""
    used_share: float | None
    """Time used over time promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntTask:
    """What was learnt of a task here."""

    task_id: int
    event_seconds: float | None
    """Core-seconds of an event, or a job, in the mean; with the user's guess where little was seen."""
    event_seconds_p90: float | None
    events_seen: int
    """Events, or jobs, that the cost was learnt from."""
    job_seconds: float | None
    """Walltime that a job exceeds with the stated risk; the user's limit until enough was seen."""
    job_median_s: float | None
    job_p90_s: float | None
    jobs_ended: int
    jobs_killed: int
    """At their walltime limit."""
    scouts_missing: int
    """Jobs that have to end before more than the user's limit is promised."""
    requests_s: tuple[float, ...]
    """Walltimes to ask for, one after the other until a job is done, that would waste least of the time held."""
    memory_mb: float | None
    memory_seen: int
    promises: LearntPromises


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What was learnt of a site."""

    start_up_s: float
    """From the begin of an allocation to its first event; 0 while nothing was seen."""
    start_ups_seen: int
    preemptions_per_node_hour: float
    """To be expected in the next hours; an assumption while little was held."""
    node_hours_seen: float
    preemptions_seen: float
    """These two count less the longer they are ago."""
    waits: tuple[QueueWait, ...]
    tasks: tuple[LearntTask, ...]
    promises: LearntPromises
    """Of all tasks, those too that are over."""


def learnt(knowledge: Knowledge, store: Store, site: Site, now: float, task_id: int | None = None) -> Learnt:
    """What was learnt, of the tasks that are here, or of one."""
    forecast = predict_allocations(knowledge, store, site, now)
    scale = knowledge.decay.weight(now)
    hazard = knowledge.hazards.get(site.scheduler.queue or "")
    tasks = [t for t in sorted(store.tasks) if t in knowledge.tasks and task_id in (None, t)]
    return Learnt(
        start_up_s=forecast.startup_s,
        start_ups_seen=round(knowledge.start_up.total / scale),
        preemptions_per_node_hour=forecast.preemptions_per_node_hour,
        node_hours_seen=sum(hazard.node_hours) / scale if hazard else 0.0,
        preemptions_seen=sum(hazard.preemptions) / scale if hazard else 0.0,
        waits=forecast.queue_waits,
        tasks=tuple(_task(knowledge, t, knowledge.tasks[t], now) for t in tasks),
        promises=_promises(knowledge.calibration, knowledge.risk),
    )


def _task(knowledge: Knowledge, task_id: int, known: TaskKnowledge, now: float) -> LearntTask:
    scale = knowledge.decay.weight(now)
    requests = knowledge.reservations(task_id)
    return LearntTask(
        task_id=task_id,
        event_seconds=known.event_seconds(scale),
        event_seconds_p90=known.events.quantile(0.9),
        events_seen=known.events_seen,
        job_seconds=known.job_seconds(knowledge.risk, scale),
        job_median_s=known.walltimes.quantile(0.5),
        job_p90_s=known.walltimes.quantile(0.9),
        jobs_ended=known.ends.get(JobEnd.ENDED, 0),
        jobs_killed=known.ends.get(JobEnd.LIMIT, 0),
        scouts_missing=known.scouts_missing(knowledge.risk, scale),
        requests_s=requests.seconds if requests is not None else (),
        memory_mb=known.memory_mb(knowledge.risk, scale),
        memory_seen=round(known.memory.samples(scale)),
        promises=_promises(known.calibration, knowledge.risk),
    )


def _promises(calibration: Calibration, risk: float) -> LearntPromises:
    return LearntPromises(
        jobs=calibration.promised,
        risk=risk,
        exceeded_share=calibration.exceeded_share,
        used_share=calibration.used_share,
    )


def sentences(learnt: Learnt) -> Iterator[str]:
    """For people; nothing while nothing was seen."""
    if learnt.start_ups_seen:
        yield (
            f"An allocation takes {duration(learnt.start_up_s)} to begin ({_count(learnt.start_ups_seen, 'start')} seen)."
        )
    if learnt.node_hours_seen > 0:
        yield (
            f"{learnt.preemptions_per_node_hour:.2g} preemptions a node-hour are expected "
            f"({learnt.preemptions_seen:.3g} in {learnt.node_hours_seen:.3g} node-hours seen)."
        )
    for wait in learnt.waits:
        yield (
            f"Up to {_count(wait.nodes, 'node')} for {duration(wait.seconds)} wait {duration(wait.median_s)} in the "
            f"median, {duration(wait.p90_s)} at the 90th percentile ({wait.seen} seen)."
        )
    for task in learnt.tasks:
        yield from _of_task(task)


def _of_task(task: LearntTask) -> Iterator[str]:
    if task.events_seen and task.event_seconds is not None:
        unit = "a job" if task.jobs_ended or task.jobs_killed else "an event"
        yield f"Task {task.task_id}: {task.event_seconds:.3g} core-seconds {unit} ({task.events_seen} seen)."
    if task.jobs_ended and task.job_median_s is not None:
        text = f"Task {task.task_id}: a job takes {duration(task.job_median_s)} in the median"
        if task.job_seconds is not None and not task.scouts_missing:
            text += f", {duration(task.job_seconds)} are planned for it"
        elif task.scouts_missing:
            text += f"; nothing is promised until {task.scouts_missing} more have ended"
        if task.promises.exceeded_share is not None:
            text += (
                f"; {task.promises.exceeded_share:.1%} of {task.promises.jobs} took longer than promised "
                f"({task.promises.risk:.0%} may)"
            )
        yield text + "."


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
