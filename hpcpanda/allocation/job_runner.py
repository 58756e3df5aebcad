"""A runner: a process that runs one job at a time, and is the ancestor of all that the job starts.

It adopts orphans. So whatever a job starts, in whatever session, is below its runner, and only that: the runner can
watch it, count it and end it, and a runner without children is the proof that nothing of the job is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcpanda.allocation.job_folders import WorkFolders
from hpcpanda.allocation.job_limits import Watch, disk_excess
from hpcpanda.allocation.job_outcome import files_bytes, outputs_problem, remove_folder, tail
from hpcpanda.allocation.job_process import Started, start
from hpcpanda.allocation.job_report import Usage, never_ran
from hpcpanda.allocation.job_run import JobEnded, JobRun
from hpcpanda.allocation.job_wire import Channel, Frame, FrameKind
from hpcpanda.allocation.process_watch import adopt_orphans, children, end_children
from hpcpanda.allocation.signals import wake_on
from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.site import Site
from hpcpanda.events.adapter import Adapter
from hpcpanda.events.bundle import JobReport
from hpcpanda.payload.forms.failure import clip, ending

GRACE_S: Final = 2.0
"""Time from SIGTERM to SIGKILL."""
BATCH_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What a batch system sends to all processes of an allocation: runners note it, jobs mostly die of it."""
RUN: Final[Adapter[JobRun]] = Adapter(JobRun)
ENDED: Final[Adapter[JobEnded]] = Adapter(JobEnded)

_NODE_ERRORS: Final = frozenset(
    (
        errno.EAGAIN,
        errno.EIO,
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
    )
)
"""Reasons for which a program cannot be started that are not the job's."""
_SIGNALS_S: Final = 0.05
"""A signal to all processes reaches the last of them within so many seconds after the first."""
_FULL_BYTES: Final = 1 << 20
_MIB: Final = 1 << 20


@dataclass(slots=True)
class _Job:
    """The job in hand."""

    run: JobRun
    folder: Path
    process: Started
    watch: Watch
    began: float
    started: float
    usage: Usage = field(default_factory=Usage)
    status: int | None = None
    """As of :func:`os.waitstatus_to_exitcode`; None while it runs."""
    condemned: str | None = None
    """Why it is being ended."""
    kill_at: float = float("inf")


class JobRunner:
    """The whole life of a runner's process."""

    def __init__(self, sock: socket.socket, site: Site, scratch: Path, base: Mapping[str, str]) -> None:
        """``base``: environment that jobs start from; ``scratch``: a path without links in it."""
        self._channel = Channel(sock)
        self._site = site
        self._scratch = scratch
        self._folders = WorkFolders(scratch)
        self._base = base
        self._host = socket.gethostname()
        self._processors = os.sched_getaffinity(0)
        self._bound = self._processors
        self._job: _Job | None = None
        adopt_orphans()
        self._signalled = float("-inf")
        for number in BATCH_SIGNALS:
            signal.signal(number, self._on_batch_signal)
        self._wake = wake_on(signal.SIGCHLD)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        """Run jobs until the keeper is gone; then nothing of the last one is left."""
        while self._receive():
            if self._job is not None:
                self._step(self._job)
        if self._job is not None:
            end_children(self._reap)
            os.chdir(self._scratch)
            remove_folder(self._job.folder)
        self._folders.close()

    def _receive(self) -> bool:
        """Wait until something has happened or is due; False when the keeper is gone."""
        interest = select.POLLIN | (select.POLLOUT if self._channel.pending else 0)
        self._poll.modify(self._channel.sock, interest)
        timeout = None
        if self._job is not None:
            due = self._job.watch.due if self._job.condemned is None else self._job.kill_at
            timeout = max(due - time.monotonic(), 0.0) * 1000 + 1
        for fd, _ in self._poll.poll(timeout):
            if fd == self._wake:
                os.read(fd, 4096)
                continue
            self._channel.flush()
            frames = self._channel.receive()
            if frames is None:
                return False
            for frame in frames:
                self._on_frame(frame)
        return True

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case FrameKind.RUN:
                self._start(RUN.validate_json(frame.body))
            case FrameKind.END:
                if self._job is not None and self._job.run.run_id == frame.run_id:
                    self._condemn(self._job, frame.body.decode(errors="replace"), at_once=False)
            case FrameKind.FORGET:
                self._folders.remove(frame.run_id)

    def _on_batch_signal(self, _number: int, _frame: object) -> None:
        self._signalled = time.monotonic()

    # ---- from start to end ----

    def _start(self, run: JobRun) -> None:
        began, started = time.monotonic(), time.time()
        try:
            folder = self._folders.make(run.run_id)
            self._bind(run)
            process = start(run, self._site, self._base, folder)
        except _CannotBind as error:
            self._refuse(run, started, str(error), node_at_fault=True)
            return
        except (PayloadFailed, ValueError) as error:
            self._refuse(run, started, str(error), node_at_fault=False)
            return
        except OSError as error:
            why = f"cannot start {clip(run.payload.command[0], 300)!r}: {error.strerror or error}"
            self._refuse(run, started, why, node_at_fault=error.errno in _NODE_ERRORS)
            return
        watch = Watch(run.request, folder, process.streams, began)
        self._job = _Job(run, folder, process, watch, began, started)

    def _bind(self, run: JobRun) -> None:
        """Bind this process; what it starts inherits that."""
        wanted = set(run.processors) or self._processors
        if wanted == self._bound:
            return
        try:
            os.sched_setaffinity(0, wanted)
        except OSError as error:
            raise _CannotBind(f"cannot bind it to processors {sorted(wanted)}: {error.strerror}") from None
        self._bound = wanted

    def _step(self, job: _Job) -> None:
        """What has become of the job, and what is due."""
        none_left = self._reap()
        now = time.monotonic()
        if job.status is None and now >= job.watch.due and job.condemned is None:
            excess = job.watch.look(now)
            if excess is not None:
                self._condemn(job, excess.why, at_once=excess.at_once)
        if job.status is None and now < job.kill_at:
            return
        if not none_left and not end_children(self._reap):
            self._stuck(job)
        self._finish(job)

    def _condemn(self, job: _Job, why: str, *, at_once: bool) -> None:
        if job.condemned is not None:
            return
        job.condemned = why
        job.kill_at = time.monotonic() + (0.0 if at_once else GRACE_S)
        if at_once:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGTERM)
        for orphan in set(children(os.getpid())) - {job.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGTERM)

    def _reap(self) -> bool:
        """Take what has ended from the kernel; whether no child is left."""
        job = self._job
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if job is None:
                continue
            job.usage.add(used)
            if pid == job.process.pid:
                job.status = os.waitstatus_to_exitcode(status)

    def _finish(self, job: _Job) -> None:
        """Tell of a job of which no process is left."""
        wall_s = time.monotonic() - job.began
        error = job.condemned or self._problem(job)
        report = JobReport(
            job=job.run.job,
            attempt=job.run.attempt,
            host=self._host,
            exit_status=job.status if job.status is not None and job.status >= 0 else None,
            signal=-job.status if job.status is not None and job.status < 0 else None,
            started=job.started,
            wall_s=wall_s,
            cpu_s=job.usage.cpu_s,
            max_rss_mb=max(job.watch.peak_bytes / _MIB, job.usage.max_rss_mb),
            read_mb=job.usage.read_mb,
            written_mb=job.usage.written_mb,
            disk_mb=job.watch.peak_disk / _MIB,
            error=error,
            stdout_tail=tail(job.process.streams[0]),
            stderr_tail=tail(job.process.streams[1]),
        )
        for fd in job.process.streams:
            os.close(fd)
        self._job = None
        if error is not None:
            at_fault = job.condemned is None and (_is_full(self._scratch) or self._was_signalled(job))
            self._tell_failed(job.run, report, node_at_fault=at_fault)
            return
        outputs = job.process.words.outputs
        self._tell(JobEnded(run_id=job.run.run_id, report=report, folder=job.folder, outputs=outputs))

    def _problem(self, job: _Job) -> str | None:
        """Why a job that ended by itself has failed."""
        if job.status != 0:
            what = "it was" if job.status is not None and job.status < 0 else "it ended with"
            return f"{what} {ending(job.status or 0)}"
        outputs = job.process.words.outputs
        problem = outputs_problem(job.folder, outputs)
        if problem is None:
            used = files_bytes(job.folder, outputs, job.process.streams)
            job.watch.peak_disk = max(job.watch.peak_disk, used)
            if used > job.run.request.disk_mb * _MIB:
                problem = disk_excess(job.run.request, used).why
        return problem

    def _was_signalled(self, job: _Job) -> bool:
        """Whether a job has failed since the batch system sent a signal to everybody; the job may hear it first."""
        status = job.status or 0
        if self._signalled < job.began and (-status if status < 0 else status - 128) in BATCH_SIGNALS:
            time.sleep(_SIGNALS_S)
        return self._signalled >= job.began

    def _refuse(self, run: JobRun, started: float, why: str, *, node_at_fault: bool) -> None:
        """Tell of a job that never ran."""
        self._tell_failed(run, never_ran(run, started=started, error=why), node_at_fault=node_at_fault)

    def _tell_failed(self, run: JobRun, report: JobReport, *, node_at_fault: bool) -> None:
        os.chdir(self._scratch)
        self._folders.remove(run.run_id)
        self._tell(JobEnded(run_id=run.run_id, report=report, node_at_fault=node_at_fault))

    def _tell(self, ended: JobEnded) -> None:
        self._channel.send(Frame(FrameKind.ENDED, ended.run_id, ENDED.dump_json(ended)))

    def _stuck(self, job: _Job) -> None:
        """Processes of the job do not even end by SIGKILL: this runner is lost with them; its keeper says so."""
        raise SystemExit(f"run {job.run.run_id}: its processes do not end: {children(os.getpid())}")


class _CannotBind(Exception):
    """The processors are not the node's to give."""


def _is_full(folder: Path) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    return found.f_bavail * found.f_frsize < _FULL_BYTES or (found.f_files > 0 and found.f_favail == 0)
