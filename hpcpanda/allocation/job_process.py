"""Starting a job's program: work folder, inputs, environment, binding.

A job sees the environment of its node agent without what belongs to the agent's own MPI program, and:

``HPCPANDA_JOB``, ``HPCPANDA_JOBS``, ``HPCPANDA_ATTEMPT``, ``HPCPANDA_CORES``
    its number, the number of jobs of its task, which attempt this is, its cores
``OMP_NUM_THREADS``
    its cores
``TMPDIR``
    its work folder, so that temporary files count as its disk and go with it
``HPCPANDA_SLICE``
    path of the file that says what it has to do, where its task was cut into jobs
``CUDA_VISIBLE_DEVICES``, ``ROCR_VISIBLE_DEVICES`` or ``ZE_AFFINITY_MASK``
    its GPUs, where nodes have any; empty for a job without

The payload's variables come last and win, but for the GPUs.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcpanda.allocation.containers import container_command
from hpcpanda.allocation.job_outcome import STREAMS
from hpcpanda.allocation.job_run import JobRun
from hpcpanda.allocation.job_words import JobWords, job_words, lay_out
from hpcpanda.domain.errors import InvalidValue, PayloadFailed
from hpcpanda.domain.site import GpuKind, NodeSettings, Site
from hpcpanda.payload.forms.failure import clip
from hpcpanda.payload.seeds import pythia_seed

_GPU_VARIABLE: Final = {
    GpuKind.CUDA: "CUDA_VISIBLE_DEVICES",
    GpuKind.ROCM: "ROCR_VISIBLE_DEVICES",
    GpuKind.LEVEL_ZERO: "ZE_AFFINITY_MASK",
}
_OF_THE_PACK: Final = ("PMI_", "PMI2_", "PMIX_", "PALS_", "OMPI_", "PRTE_", "HYDRA_", "HYDI_", "MPI_LOCAL")
"""Variables by which an MPI launcher tells a process which rank it is; a job that uses MPI would take itself for it."""
_TO_PRINT: Final = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
_DEFAULTS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job's program that has been started."""

    pid: int
    """Also its session and process group."""
    words: JobWords
    streams: tuple[int, int]
    """Descriptors of the files that it prints to."""


def base_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment that all jobs start from, from the node agent's."""
    return {name: value for name, value in own.items() if not name.startswith(_OF_THE_PACK)}


def words_of(run: JobRun) -> JobWords:
    """The job's words; ``{seed}`` is the task's seed and the job's number as :func:`pythia_seed` puts them together.

    So no two jobs of a task have the same, and every generator takes it.
    """
    return job_words(
        run.payload,
        run.request,
        job=run.job,
        jobs=run.jobs,
        seed=pythia_seed(run.seed, run.job),
        cores=run.request.cores,
        content=run.content,
    )


def job_variables(
    run: JobRun, payload: Mapping[str, str], nodes: NodeSettings, base: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """What is added to the environment for a job; ``payload``: its own variables, filled in."""
    cores = str(run.request.cores)
    variables = {
        "HPCPANDA_JOB": str(run.job),
        "HPCPANDA_JOBS": str(run.jobs),
        "HPCPANDA_ATTEMPT": str(run.attempt),
        "HPCPANDA_CORES": cores,
        "OMP_NUM_THREADS": cores,
        "TMPDIR": str(folder),
        "PWD": str(folder),
        **payload,
    }
    if nodes.gpus:
        name = _GPU_VARIABLE[nodes.gpu_kind]
        given = [g for g in base.get(name, "").split(",") if g]  # the batch system may have names of its own
        variables[name] = ",".join(given[i] if i < len(given) else str(i) for i in run.gpus)
    return variables


def start(run: JobRun, site: Site, base: Mapping[str, str], folder: Path) -> Started:
    """Start a job in ``folder``, which becomes this process's working folder, too.

    posix_spawn(3) shares this process's memory until the program is loaded, which makes it the fastest way there is.
    What it cannot set, the program inherits: working folder and processors.

    Raises:
        PayloadFailed: an input or the program is not there.
        ValueError: the words cannot be said in the node's encoding.
        OSError: the kernel refuses.
    """
    words = words_of(run)
    os.chdir(folder)
    told = lay_out(words, folder)
    variables = job_variables(run, {**told, **words.environment}, site.nodes, base, folder)
    environment = {**base, **variables}
    command = words.command if run.container is None else _in_container(run, words, site, folder, variables)
    program = _find(command[0], environment)
    streams: list[int] = []
    try:
        streams.extend(os.open(folder / name, _TO_PRINT, 0o600) for name in STREAMS)
        out, err = streams
        pid = os.posix_spawn(
            program,
            command,
            environment,
            file_actions=((os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)),
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULTS,
        )
    except BaseException:
        for fd in streams:
            os.close(fd)
        raise
    return Started(pid=pid, words=words, streams=(out, err))


def _find(program: str, environment: Mapping[str, str]) -> str:
    if "/" in program:
        return program
    path = environment.get("PATH", os.defpath)
    found = shutil.which(program, path=path)
    if found is None:
        raise PayloadFailed(
            f"payload.command: there is no program {clip(program, 300)!r} on PATH {clip(path, 300)}, or it is not executable"
        )
    return found


def _in_container(
    run: JobRun, words: JobWords, site: Site, folder: Path, variables: Mapping[str, str]
) -> tuple[str, ...]:
    if site.containers is None:
        raise PayloadFailed(
            f"container: the task asks for {clip(str(run.container), 300)!r}, but this site has no container runtime: "
            "the site file has no [containers]"
        )
    try:
        return tuple(
            container_command(
                site.containers,
                str(run.container),
                words.command,
                folder=folder,
                binds=tuple(dict.fromkeys(str(path.parent) for path in words.read)),
                environment=variables,
                gpus=bool(run.gpus),
            )
        )
    except InvalidValue as error:
        raise PayloadFailed(str(error)) from None
