"""What the tests of the whole chain share: task specifications, serial runs, and looks at a spool."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from hpcpanda.allocation.spool import Spool
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, RangePolicy, TaskSpec
from hpcpanda.domain.task_views import Task
from hpcpanda.events.journal import events_of, read_journal
from hpcpanda.merge import Manifest, digest_bytes, digest_columns, load_manifest
from hpcpanda.payload.forms import prepare

from .services import Services, wait_for_task, wait_until

SUPPORT: Final = Path(__file__).parent
EXAMPLES: Final = SUPPORT.parents[1] / "examples"
DATA: Final = Path(os.environ.get("HPCPANDA_TEST_DATA", SUPPORT.parents[2] / "shared" / "data"))


def chain_task(
    call: str,
    *,
    events: int = 200,
    module: str = "chain_payload",
    setup: str | None = None,
    settings: dict[str, Any] | None = None,
    max_failed: int = 0,
    attempts: int = 2,
    retries: int = 0,
    target_seconds: float = 0.1,
    max_range: int | None = None,
    **more: Any,
) -> TaskSpec:
    """A small task of :mod:`tests.support.chain_payload`."""
    return TaskSpec(
        name=more.pop("name", call.replace("_", "-")),
        events=events,
        payload=CallablePayload(
            call=f"{module}:{call}",
            setup=f"{module}:{setup}" if setup else None,
            python_path=(str(SUPPORT),),
            settings=settings or {},
        ),
        ranges=RangePolicy(target_seconds=target_seconds, max_events=max_range),
        loss=LossPolicy(max_failed_events=max_failed, attempts=attempts, retries=retries),
        output=more.pop("output", Output(file="out.h5")),
        **more,
    )


def task_toml(call: str = "generate", *, events: str = "events = 200", more: str = "") -> str:
    """The same as a task file; ``more`` are further lines of ``payload.settings`` or tables."""
    return f"""
name = "{call.replace("_", "-")}"
{events}
[payload]
form = "callable"
call = "chain_payload:{call}"
python_path = ["{SUPPORT}"]
[output]
file = "out.h5"
[ranges]
target_seconds = 0.1
[payload.settings]
{more}
"""


def serial_digest(spec: TaskSpec, folder: Path) -> str:
    """Digest of what the payload gives for the whole event space in one call in this process, without its sleeps."""
    if isinstance(spec.payload, CallablePayload) and "event_s" in spec.payload.settings:
        spec = replace(
            spec, payload=replace(spec.payload, settings={**spec.payload.settings, "event_s": 0.0})
        )
    folder.mkdir(parents=True, exist_ok=True)
    path, modules = list(sys.path), set(sys.modules)
    try:
        runner = prepare(spec).runner(folder)
        output = runner.run(0, spec.event_count)
        runner.close()
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
    return digest_bytes(output) if isinstance(output, bytes) else digest_columns(output)


@dataclass(frozen=True)
class Finished:
    """A task at its end, with its only output."""

    task: Task
    output: OutputFile
    manifest: Manifest


def run_to_end(services: Services, spec: TaskSpec, *, seconds: float = 90.0) -> Task:
    """Submit a task and wait for its end, whatever that is."""
    with services.client() as client:
        return wait_for_task(client, client.submit(spec).task_id, seconds=seconds)


def run_to_output(services: Services, spec: TaskSpec, *, state: TaskState = TaskState.DONE) -> Finished:
    """Submit a task, wait for its output, and check that its manifest tells the truth about the file.

    On the way it is watched that journals and segments live as long as the task does.
    """
    with services.client() as client:
        task_id = client.submit(spec).task_id
        folder = Spool(services.spool).events(task_id)
        wait_until(folder.exists, "the first journal", on_wait=lambda: services.check_alive("edge"))

        def ended() -> bool:
            kept = folder.exists()
            final = client.task(task_id).state.final
            assert kept or final, "journals and segments were deleted before the task had ended"
            return final

        wait_until(ended, f"the end of task {task_id}", seconds=90)
        task = client.task(task_id)
        assert task.state is state, task.message
        (output,) = client.outputs(task_id).files
    wait_until(lambda: not folder.exists(), "the clean-up of journals and segments")
    return Finished(task=task, output=output, manifest=checked_manifest(output, task))


def checked_manifest(output: OutputFile, task: Task, *, site: str = "laptop") -> Manifest:
    """The manifest of an output, which agrees with the file, the report and the task."""
    path = Path(output.path)
    manifest = load_manifest(path)
    assert manifest is not None
    assert Path(output.manifest).is_file()
    assert (manifest.file, manifest.size) == (path.name, path.stat().st_size)
    assert (manifest.events, manifest.digest, manifest.size) == (output.events, output.digest, output.size)
    assert manifest.output_format is task.spec.output.format
    parts = [source.events for source in manifest.sources]
    assert IntervalSet.of(r for part in parts for r in part.ranges()) == output.events
    assert sum(map(len, parts)) == len(output.events)
    assert all(source.ranges > 0 and source.segments for source in manifest.sources)
    assert manifest.provenance["site"] == site
    assert manifest.provenance["task"] == task.spec.name
    assert manifest.provenance["task_id"] == str(task.task_id)
    return manifest


def data_file(name: str) -> Path:
    """A real data file; the test is skipped where it is absent."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {name} in {DATA}; set HPCPANDA_TEST_DATA")
    return path


def done(client: DispatcherClient, task_id: int) -> int:
    """Events done as the dispatcher knows; 0 while it is away."""
    try:
        return client.task(task_id).progress.done
    except Unavailable:
        return 0


def journalled(spool: Path, task_id: int) -> tuple[int, IntervalSet]:
    """How often events of a task are journalled, and which: the first is larger when some were done twice."""
    count, events = 0, IntervalSet()
    for path in sorted(Spool(spool).events(task_id).glob("*.journal")):
        entries = read_journal(path, start=0, durable_only=False).entries
        count += int(np.sum(entries["last"] - entries["first"]))
        events |= events_of(entries)
    return count, events


def heads(services: Services) -> dict[str, int]:
    """Allocation and process id of every living head."""
    found = {}
    for role, process in services.processes():
        if role == "head":
            with contextlib.suppress(Exception):
                words = process.cmdline()
                at = words.index("hpcpanda.allocation.head")
                found[Path(words[at + 1]).name] = process.pid
    return found


def only_services_left(services: Services) -> bool:
    """Whether of all processes none but the services themselves are left."""
    return {role for role, _ in services.processes()} <= {"dispatcher", "edge"}


@dataclass(frozen=True)
class Ran:
    """What a command has said, and how it exited."""

    code: int
    out: str
    err: str


def run_command(main: Callable[[], None], *words: str) -> Ran:
    """Call the entry point of a command in this process, as the installed program does."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = [main.__module__.replace("hpcpanda.client.cli", "hpcpanda"), *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        sys.argv = before
    return Ran(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def running(services: Services) -> Iterator[Services]:
    """A dispatcher and an edge, ended with all that they have started."""
    try:
        services.start_dispatcher()
        services.start_edge()
        yield services
    finally:
        services.stop()


ZIP: Final = Output(file="out.zip", format=OutputFormat.ZIP)
CONCAT: Final = Output(file="out.txt", format=OutputFormat.CONCAT)
