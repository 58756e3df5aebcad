"""A job's command, environment and file names with its placeholders filled in, and its inputs in its work folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcpanda.allocation.job_outcome import STREAMS
from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.payload.forms.child import fill

SLICE: Final = "slice.json"
"""File in the work folder that says what a job of a task that was cut has to do."""
SLICE_VARIABLE: Final = "HPCPANDA_SLICE"
"""Has the path of that file."""
_FILES: Final = "{files}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWords:
    """What one job is started with."""

    command: tuple[str, ...]
    environment: dict[str, str]
    """Only the payload's own variables."""
    inputs: tuple[Path, ...]
    outputs: tuple[str, ...]
    """Names inside the work folder."""
    content: JobSlice | None = None
    """What it has to do, of a task that was cut into jobs."""
    names: tuple[str, ...] = ()
    """Names of the files of the content inside the work folder."""

    @property
    def read(self) -> tuple[Path, ...]:
        """Where all that it is to read is."""
        files = self.content.files if self.content is not None else ()
        return (*self.inputs, *(Path(file.path) for file in files))


def job_words(
    payload: JobPayload,
    request: JobRequest,
    *,
    job: int,
    jobs: int,
    seed: int,
    cores: int,
    content: JobSlice | None = None,
) -> JobWords:
    """The words of one job.

    Args:
        payload: the task's.
        request: the task's.
        job: number of the job.
        jobs: number of jobs of the task.
        seed: of the job.
        cores: cores that the job has, on all its nodes together.
        content: what it has to do, of a task that was cut into jobs.
    """
    of_files = {"job": str(job)}
    values = of_files | {
        "jobs": str(jobs),
        "seed": str(seed),
        "cores": str(cores),
        "gpus": str(request.gpus),
        "memory_mb": str(request.memory_mb),
    }
    inputs = tuple(Path(fill(path, of_files)) for path in payload.inputs)
    outputs = tuple(fill(name, of_files) for name in payload.outputs)
    names: tuple[str, ...] = ()
    if content is not None:
        count = content.last - content.first
        values |= {"first": str(content.first), "last": str(content.last), "count": str(count)}
        names = tuple(_names(content, {SLICE, *STREAMS, *outputs, *(path.name for path in inputs)}))
    return JobWords(
        command=tuple(_command(payload.command, values, names if content is not None else None)),
        environment={name: fill(value, values) for name, value in payload.environment.items()},
        inputs=inputs,
        outputs=outputs,
        content=content,
        names=names,
    )


def _command(words: Iterable[str], values: Mapping[str, str], names: Iterable[str] | None) -> Iterator[str]:
    """The words of the command. Names of files are put in as they are, whatever braces are in them."""
    for word in words:
        if word == _FILES and names is not None:
            yield from names
        else:
            yield fill(word, values)


def _names(content: JobSlice, taken: set[str]) -> Iterator[str]:
    """Under which names its files are in the work folder: their own, after a number where that is another's."""
    for number, file in enumerate(content.files):
        name = file.path.rpartition("/")[2]
        while name in taken:
            name = f"{number}-{name}"
        taken.add(name)
        yield name


def lay_out(words: JobWords, folder: Path) -> Mapping[str, str]:
    """Put into a work folder what a job is to read; gives the variables that tell it of that.

    Raises:
        PayloadFailed: an input is not there, or two have the same name.
        OSError: the folder cannot be written.
    """
    for path in words.inputs:
        _link(folder / path.name, path)
    if words.content is None:
        return {}
    for name, file in zip(words.names, words.content.files, strict=True):
        _link(folder / name, Path(file.path))
    (folder / SLICE).write_text(_said(words.content, words.names), encoding="utf-8")
    return {SLICE_VARIABLE: str(folder / SLICE)}


def _link(link: Path, path: Path) -> None:
    if not path.exists():
        raise PayloadFailed(f"payload.inputs: there is no file {path}")
    try:
        link.symlink_to(path)
    except FileExistsError:
        raise PayloadFailed(f"payload.inputs: two files are called {path.name!r}") from None


def _said(content: JobSlice, names: tuple[str, ...]) -> str:
    files = [
        {"name": name, "path": file.path, "first": file.first, "last": file.last}
        for name, file in zip(names, content.files, strict=True)
    ]
    facts = {"job": content.job, "first": content.first, "last": content.last, "files": files}
    return json.dumps(facts) + "\n"
