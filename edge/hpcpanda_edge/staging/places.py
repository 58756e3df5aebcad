"""Where staged files lie. Pure: nothing is looked up.

::

    SPOOL/tasks/TASK/input/N/NAME        copy of the N-th input
    SPOOL/tasks/TASK/input/eN/NAME       copy of the input of a dataset whose first entry is event N
    SPOOL/tasks/TASK/input/N/JOB/NAME    copy of the N-th input of one job, when its path names {job}
    SPOOL/tasks/TASK/input/.part-*       a copy that is not finished
    SPOOL/tasks/TASK/moved/              takes the place of output/ when all of it is at its destination
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.inputs import InputFile
from hpcpanda.domain.intervals import EventRange, IntervalSet
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms.child import fill
from hpcpanda_edge.input_files import listing, reads_dataset


def input_folder(spool: Spool, task_id: int) -> Path:
    """Where the copies of a task's inputs are."""
    return spool.output(task_id).with_name("input")


def moved_folder(spool: Spool, task_id: int) -> Path:
    """Stands when all that was in the task's output folder is at its destination."""
    return spool.output(task_id).with_name("moved")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An input of a task: one file, or one file a job."""

    number: int
    """Its place among the inputs."""
    path: str
    """Of the original; ``{job}`` is filled in."""
    cover: EventRange
    """Events, or jobs, that read it."""
    size: int | None = None
    checksum: str | None = None
    place: str | None = None
    """Folder of its copy; its number unless said."""

    @property
    def each(self) -> bool:
        """Whether it is a file of its own for each job."""
        return "{job}" in self.path

    def unit(self, event: int) -> EventRange:
        """The events, or jobs, that read the same file as this one."""
        return EventRange(event, event + 1) if self.each else self.cover

    def units(self, events: IntervalSet) -> IntervalSet:
        """The events, or jobs, that read the same files as these."""
        mine = events & IntervalSet.span(self.cover.first, self.cover.last)
        return mine if self.each or not mine else IntervalSet.span(self.cover.first, self.cover.last)

    def original(self, first: int) -> Path:
        """The file that the unit beginning with ``first`` is copied from."""
        return Path(self._filled(first) if self.each else self.path)

    def copy(self, folder: Path, first: int) -> Path:
        """Where in the task's input folder its copy is."""
        middle = (str(first),) if self.each else ()
        return folder.joinpath(self.place or str(self.number), *middle, self.original(first).name)

    def unfinished(self, folder: Path, first: int) -> Path:
        """Where its copy is while it is made."""
        return folder / f".part-{self.number}-{first}"

    def _filled(self, job: int) -> str:
        return fill(self.path, {"job": str(job)})


def sources(spec: TaskSpec) -> tuple[Source, ...]:
    """The inputs of a task that are to be copied; none when they are read in place."""
    if spec.staging.inputs == "in-place":
        return ()
    if spec.inputs is None:
        every = EventRange(0, spec.event_count)
        return tuple(Source(number=n, path=p, cover=every) for n, p in enumerate(spec.input_paths))
    return tuple(
        Source(
            number=number,
            path=file.path,
            cover=EventRange(first, first + file.events),
            size=file.size,
            checksum=file.checksum,
            place=_place(number, file),
        )
        for number, (first, file) in enumerate(zip(spec.inputs.starts, spec.inputs.files, strict=True))
    )


def _place(number: int, file: InputFile) -> str:
    """Folder of an input's copy: of a file that is told of with its events its place among the others changes."""
    return str(number) if file.first is None else f"e{file.first}"


def staged_spec(spec: TaskSpec, spool: Spool, task_id: int) -> TaskSpec:
    """The task as those who run its payload see it: paths of inputs are those of the copies."""
    if reads_dataset(spec) and spec.inputs is not None:
        spec = replace(spec, inputs=replace(spec.inputs, listing=str(listing(spool, task_id))))
    if spec.staging.inputs == "in-place":
        return spec
    folder = input_folder(spool, task_id)
    if spec.inputs is not None:
        paths = [str(folder / _place(n, f) / Path(f.path).name) for n, f in enumerate(spec.inputs.files)]
        files = tuple(replace(f, path=p) for f, p in zip(spec.inputs.files, paths, strict=True))
        return replace(spec, inputs=replace(spec.inputs, files=files))
    assert isinstance(spec.payload, JobPayload)
    templates = tuple(
        str(folder.joinpath(str(n), *(("{job}",) if "{job}" in path else ()), Path(path).name))
        for n, path in enumerate(spec.payload.inputs)
    )
    return replace(spec, payload=replace(spec.payload, inputs=templates))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a task's output is moved."""

    base: Path
    """The part of the folder that must be there."""
    folder: Path

    @classmethod
    def of(cls, spec: TaskSpec, site: str, task_id: int) -> Destination | None:
        """Of a task; None when its output stays in the spool."""
        template = spec.staging.destination
        if template is None:
            return None
        fixed: list[str] = []
        for part in Path(template).parts:
            if "{" in part:
                break
            fixed.append(part)
        return cls(base=Path(*fixed), folder=Path(fill(template, {"site": site, "task": str(task_id)})))

    def moved(self, output: OutputFile) -> OutputFile:
        """The report about an output that has arrived."""
        return replace(
            output,
            path=str(self.folder / Path(output.path).name),
            manifest=str(self.folder / Path(output.manifest).name),
        )
