"""The program of an MPI job's pack: one job of a task, started with the site's launcher on nodes of its own.

It runs once, beside the head, with the launcher's words in a variable (``launch.MPI_PREFIX``). The job's processes are
on other nodes: their memory is not watched here, the batch system does that, and the processor time and memory that
are reported are those of this node's processes. The work folder is on the shared file system, as all nodes must see it.

A job is recorded when it has succeeded, and set aside when its last attempt has failed. One that is told to end, or
that the batch system ends, is neither: it stays undone.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from hpcpanda.allocation.containers import container_command
from hpcpanda.allocation.job_record import record_job
from hpcpanda.allocation.job_words import SLICE, SLICE_VARIABLE, JobWords, job_words
from hpcpanda.allocation.launch import MPI_PREFIX
from hpcpanda.allocation.launch_words import find_launcher
from hpcpanda.allocation.mpi_attempt import Attempt, end_with_parent
from hpcpanda.allocation.mpi_orders import Orders
from hpcpanda.allocation.pack_journal import open_journal
from hpcpanda.allocation.pack_line import HeadLine
from hpcpanda.allocation.pack_run import PACK_RUN, PackRun
from hpcpanda.allocation.plan import MpiJobPack, PackStatus, TaskProgress, TaskWork
from hpcpanda.allocation.spool import Spool, read_message
from hpcpanda.domain.errors import HpcPandaError, InvalidValue, PayloadFailed, SchedulerFailed
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.events.journal import FailedInEpoch
from hpcpanda.events.recorder import Recorder
from hpcpanda.payload import pythia_seed

_STATUS_S: Final = 1.0
_SETTLE_S: Final = 2.0
"""Where ranks were ended from outside, the allocation may be ending, and the head about to say so."""


class MpiJob:
    """The pack's loop."""

    def __init__(self, run: PackRun, pack: MpiJobPack, line: HeadLine) -> None:
        """Be ready to run the pack's job, listening to the head on ``line``."""
        self._run = run
        self._pack = pack
        (self._work,) = pack.work
        self._leased = _single_job(self._work)
        self._orders = Orders(
            line,
            task_id=self._work.task_id,
            epoch=self._leased[0] if self._leased is not None else None,
            grace_s=run.site.allocation.grace_s,
        )
        self._cores = pack.nodes * run.site.nodes.cores
        self._deadline = time.monotonic() + run.deadline - time.time()
        self._folder = (
            Spool(Path(run.spool)).allocation(run.allocation_id).path
            / "work"
            / f"{pack.pack_id}-i{run.incarnation}"
        )
        self._attempt: Attempt | None = None
        self._progress = TaskProgress(task_id=self._work.task_id)
        self._reported = -math.inf

    def run(self) -> None:
        """Run the job; gives back when it is recorded, set aside, or to be left undone.

        Raises:
            SchedulerFailed: it was not run to its end, by no fault of its own.
            OSError: the spool folder cannot be used.
        """
        self._tell("running")
        if self._leased is not None:
            try:
                self._attempts(*self._leased)
            except (SchedulerFailed, OSError) as problem:
                self._tell("running", error=str(problem))
                raise
            finally:
                self._clear()
        self._tell("ended")

    # ---- the job ----

    def _attempts(self, epoch: int, job: int) -> None:
        """Try until it succeeds, or has failed for good, or is to be left undone.

        Raises:
            SchedulerFailed: the launcher does not start it.
            OSError: the spool folder cannot be used.
        """
        loss = self._work.spec.loss
        try:
            words = self._words(job)
        except HpcPandaError as problem:
            self._progress = replace(self._progress, state="failed", error=str(problem))
            return
        needs_s, failure = 0.0, ""
        for number in range(1, loss.attempts + 1):
            if self._orders.stopped or time.monotonic() + needs_s > self._deadline:
                return
            try:
                said = self._try(epoch, job, words, number)
            except PayloadFailed as problem:
                said = str(problem)
            if said is None:
                return
            failure = said
            needs_s = self._attempt.wall_s if self._attempt is not None else 0.0
        failed = FailedEvent(event=job, error=failure, attempts=loss.attempts)
        with self._recorder() as recorder:
            recorder.set_aside(FailedInEpoch(epoch=epoch, events=(failed,)))

    def _words(self, job: int) -> JobWords:
        """What the ranks are started with.

        Raises:
            HpcPandaError: it asks for a container that cannot be run here.
        """
        spec, site = self._work.spec, self._run.site
        request, payload = spec.job_request, spec.payload
        assert request is not None
        assert isinstance(payload, JobPayload)
        seed = pythia_seed(spec.seed, job)
        words = job_words(
            payload,
            request,
            job=job,
            jobs=spec.event_count,
            seed=seed,
            cores=self._cores,
            content=self._content(job),
        )
        if spec.container is None:
            return words
        if site.containers is None:
            raise PayloadFailed("container: the site file has no [containers], so none can be run here")
        command = container_command(
            site.containers,
            spec.container,
            words.command,
            folder=self._folder,
            binds=tuple(dict.fromkeys(str(path.parent) for path in words.read)),
            environment=self._told(words) | words.environment,
            gpus=request.gpus > 0,
            ranks=True,
        )
        return replace(words, command=tuple(command), environment={})

    def _content(self, job: int) -> JobSlice | None:
        """What the job has to do, of a task that was cut into jobs."""
        return next((s for part in self._work.events for s in part.slices if s.job == job), None)

    def _told(self, words: JobWords) -> dict[str, str]:
        """What a container has to be given of the variables that tell of that."""
        return {} if words.content is None else {SLICE_VARIABLE: str(self._folder / SLICE)}

    def _try(self, epoch: int, job: int, words: JobWords, number: int) -> str | None:
        """One attempt; why it failed, None when it is recorded, or to be left undone.

        Raises:
            PayloadFailed: an input is missing.
            SchedulerFailed: the launcher does not start it.
            OSError: the spool folder cannot be used.
        """
        request = self._work.spec.job_request
        assert request is not None
        self._attempt = None
        self._clear()
        self._folder.mkdir(parents=True)
        launcher = find_launcher(shlex.split(os.environ[MPI_PREFIX]))
        self._attempt = attempt = Attempt(words, launcher, self._folder, job=job, number=number)
        late = self._watch(attempt, request.walltime_s)
        failure = late or attempt.failure(request.disk_mb)
        if failure is not None and late is None and self._orders.stopped:
            return None
        if late is None and not attempt.is_its_own_doing:
            if self._is_ending():
                return None
            raise SchedulerFailed(f"the job was ended, but not by itself: {failure or 'exit status 0'}")
        if failure is None:
            report = attempt.report(None)
            with self._recorder() as recorder:
                record_job(
                    recorder, report, self._folder, words.outputs, epoch=epoch, slot=0, cores=self._cores
                )
            self._progress = replace(self._progress, done=1, event_seconds=report.wall_s * self._cores)
        return failure

    def _watch(self, attempt: Attempt, walltime_s: float) -> str | None:
        """Wait for the end of the command; why it was ended, if that was for its wall time."""
        orders, too_long, told = self._orders, None, False
        while not attempt.ended():
            now = time.monotonic()
            if now >= self._deadline:
                orders.finish(0.0)
            if attempt.begun and too_long is None and not orders.stopped and attempt.wall_s > walltime_s:
                too_long = f"it ran longer than job.walltime_s, {walltime_s:g} s"
            if not told and (now >= orders.finish_at or too_long is not None):
                told = True
                orders.end_command()
                attempt.tell()
            if now >= orders.kill_at:
                attempt.kill()
            self._step(0.05 if told else 0.25)
        orders.command_has_ended()
        return too_long

    def _is_ending(self) -> bool:
        """Whether the head wants an end, or is just about to want it."""
        until = time.monotonic() + _SETTLE_S
        while not self._orders.stopped and time.monotonic() < until:
            self._step(0.1)
        return self._orders.stopped

    def _recorder(self) -> AbstractContextManager[Recorder]:
        return open_journal(self._run, self._work.task_id, rank=0, cores=self._cores)

    def _clear(self) -> None:
        """Remove the work folder, and those that earlier starts of the pack were killed over."""
        for left in self._folder.parent.glob(f"{self._pack.pack_id}-i*"):
            shutil.rmtree(left, ignore_errors=True)

    # ---- the head ----

    def _step(self, seconds: float) -> None:
        """Wait for an order, the end of the command, or so long; report once a second."""
        self._orders.wait(seconds)
        if time.monotonic() - self._reported >= _STATUS_S:
            self._tell("running")

    def _tell(self, state: Literal["running", "ended"], error: str | None = None) -> None:
        self._reported = time.monotonic()
        attempt = self._attempt
        at_work = attempt is not None and not attempt.ended() and attempt.begun
        busy, held = (self._cores if at_work else 0), (self._cores if state == "running" else 0)
        status = PackStatus(
            pack_id=self._pack.pack_id,
            state=state,
            incarnation=self._run.incarnation,
            cores=self._cores,
            cores_busy=busy,
            occupancy=(1.0 if at_work else 0.0,) * self._cores,
            tasks=(self._of_task(state, held, busy),),
            idle=state == "ended",
            job_cores=held,
            told_to_end=self._orders.told,
            error=error,
        )
        self._orders.report(status)

    def _of_task(self, state: Literal["running", "ended"], held: int, busy: int) -> TaskProgress:
        known = self._progress
        return replace(
            known,
            state="failed" if known.error is not None else state,
            cores=held,
            cores_busy=busy,
            idle=state == "ended",
        )


def _single_job(work: TaskWork) -> tuple[int, int] | None:
    """Epoch and number of the job; None when it is done already.

    Raises:
        InvalidValue: there is more than one.
    """
    left = [(part.epoch, next(part.events.ranges()).first) for part in work.events if part.events]
    if sum(len(part.events) for part in work.events) > 1:
        raise InvalidValue("pack.work", "an MPI job's pack has one job")
    return left[0] if left else None


def main() -> None:
    """Entry point: run the job, and report on the original stdout. A failure makes the head start it again."""
    end_with_parent()
    line = HeadLine()
    run = read_message(Path(sys.argv[1]), PACK_RUN)
    assert isinstance(run.pack, MpiJobPack)
    try:
        MpiJob(run, run.pack, line).run()
    except (SchedulerFailed, OSError) as problem:
        sys.exit(f"{run.pack.pack_id}: {problem}")


if __name__ == "__main__":
    main()
