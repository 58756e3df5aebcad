"""Runs a payload over given ranges the way a node does: prepared once, then in workers forked from there.

Results go through files in a folder of the trial, one a worker: lines of JSON, each followed by the
bytes it announces. A worker that dies leaves what it had finished, and the range it died on.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hpcpanda.domain.errors import HpcPandaError, PayloadFailed
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.columns import Column, Schema, encode
from hpcpanda.payload.forms import Prepared, prepare
from hpcpanda.payload.forms.child import die_with
from hpcpanda.payload.forms.failure import ending

Span = tuple[int, int]
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One way to cut the same events: the ranges of each worker, in the order it runs them."""

    name: str
    of_workers: tuple[tuple[Span, ...], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """The stored result of one range."""

    first: int
    last: int
    seconds: float
    schema: Schema
    data: bytes


@dataclass(slots=True)
class CutTrial:
    """What became of one cut."""

    pieces: list[Piece] = field(default_factory=list)
    """In event order."""
    failures: list[tuple[Span, str]] = field(default_factory=list)
    rss_mb: float = 0.0
    """Largest resident memory of a worker, MiB."""
    shared_mb: float | None = None
    """Part of it that is shared with other processes, MiB; None where the system does not tell."""
    programs_mb: float = 0.0
    """Largest resident memory of a program that a worker started, MiB; an upper bound."""
    left_files: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Trial:
    """What became of all cuts."""

    setup_s: float
    new_threads: int
    """Threads that were started by the set-up and still lived when workers were forked."""
    open_files: list[str]
    """Files that the set-up left open."""
    printed: bytes
    """Beginning of what was written on stdout."""
    printed_bytes: int
    cuts: list[CutTrial]


def run_trial(spec: TaskSpec, cuts: Sequence[Cut], folder: Path) -> Trial:
    """Run every cut, one after the other, in processes of its own.

    Raises:
        PayloadFailed: the payload could not be prepared.
    """
    server = _fork(lambda: _serve(spec, cuts, folder))
    try:
        _, status = os.waitpid(server, 0)
    except BaseException:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        raise
    facts = folder / "facts.json"
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        raise PayloadFailed(f"set-up took longer than {spec.resources.setup_timeout_s:g} s")
    if code != 0 or not facts.exists():
        raise PayloadFailed(f"the process that ran the set-up ended with {ending(code)}")
    told = json.loads(facts.read_text(encoding="utf-8"))
    if "failed" in told:
        raise PayloadFailed(told["failed"])
    stdout = folder / "stdout"
    with stdout.open("rb") as file:
        printed = file.read(200)
    return Trial(
        setup_s=told["setup_s"],
        new_threads=told["new_threads"],
        open_files=told["open_files"],
        printed=printed,
        printed_bytes=stdout.stat().st_size,
        cuts=[_gathered(spec, folder, number, statuses) for number, statuses in enumerate(told["statuses"])],
    )


def _fork(work: Callable[[], None]) -> int:
    """Run ``work`` in a child that ends with it, or with its parent."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live_as_child(work, parent)
    return pid


def _live_as_child(work: Callable[[], None], parent: int) -> NoReturn:
    status = 1
    try:
        die_with(parent)()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
        sys.stdout.flush()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may unwind into the code that forked
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _serve(spec: TaskSpec, cuts: Sequence[Cut], folder: Path) -> None:
    _redirect(folder / "stdout")
    threads, files = _threads(), _open_files()
    signal.setitimer(signal.ITIMER_REAL, spec.resources.setup_timeout_s)
    started = time.perf_counter()
    try:
        prepared = prepare(spec)
    except PayloadFailed as error:
        _write_facts(folder, {"failed": str(error)})
        return
    setup_s = time.perf_counter() - started
    signal.setitimer(signal.ITIMER_REAL, 0)
    facts: dict[str, Any] = {
        "setup_s": setup_s,
        "new_threads": _threads() - threads,
        "open_files": sorted(_open_files() - files),
        "statuses": [],
    }
    for number, cut in enumerate(cuts):
        pids = [
            _fork(lambda n=number, w=w, s=spans: _work(spec, prepared, s, _records(folder, n, w)))  # type: ignore[misc]
            for w, spans in enumerate(cut.of_workers)
        ]
        facts["statuses"].append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
    _write_facts(folder, facts)


def _redirect(stdout: Path) -> None:
    with open(os.devnull, "rb") as nothing, stdout.open("wb") as file:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)


def _threads() -> int:
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return 0


def _open_files() -> set[str]:
    """Regular files this process has open for reading by position: forked workers would share that."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            if stat.S_ISREG(link.stat().st_mode):
                found.add(str(link.readlink()))
        except OSError:
            continue  # the descriptor of this very listing
    return found


def _write_facts(folder: Path, facts: dict[str, Any]) -> None:
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _records(folder: Path, cut: int, worker: int) -> Path:
    return folder / f"cut{cut}-worker{worker}"


def _work(spec: TaskSpec, prepared: Prepared, spans: Sequence[Span], records: Path) -> None:
    """Life of a worker: run its ranges, then tell about its memory."""
    work_folder = records.with_suffix(".work")
    work_folder.mkdir()
    runner = prepared.runner(work_folder)
    with records.open("wb") as file:

        def tell(facts: dict[str, Any], data: bytes = b"") -> None:
            file.write(json.dumps(facts | {"bytes": len(data)}).encode() + b"\n" + data)
            file.flush()

        for first, last in spans:
            tell({"began": [first, last]})
            signal.setitimer(signal.ITIMER_REAL, spec.resources.range_timeout_s)
            started = time.perf_counter()
            try:
                output = runner.run(first, last)
                seconds = time.perf_counter() - started
                schema, buffers = encode(output, last - first)
            except HpcPandaError as error:
                tell({"failed": str(error)})
            else:
                tell({"seconds": seconds, "schema": asdict(schema)}, b"".join(buffers))
            signal.setitimer(signal.ITIMER_REAL, 0)
        memory = _memory()
        runner.close()
        programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        left = sorted(p.name for p in work_folder.iterdir())[:20]
        tell({"memory": memory, "programs_mb": programs, "left_files": left})


def _memory() -> tuple[float, float | None]:
    """Resident memory of this process and the part shared with others, MiB."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / _MIB, None
    kib = {name.rstrip(":"): int(value) for name, value, *_ in (line.split() for line in lines)}
    return kib["Rss"] / 1024, (kib["Shared_Clean"] + kib["Shared_Dirty"]) / 1024


def _gathered(spec: TaskSpec, folder: Path, number: int, statuses: Sequence[int]) -> CutTrial:
    trial = CutTrial()
    for worker, status in enumerate(statuses):
        began: Span | None = None
        for facts, data in _read(_records(folder, number, worker)):
            if "began" in facts:
                began = tuple(facts["began"])
            elif "memory" in facts:
                rss, shared = facts["memory"]
                if rss >= trial.rss_mb:
                    trial.rss_mb, trial.shared_mb = rss, shared
                trial.programs_mb = max(trial.programs_mb, facts["programs_mb"])
                trial.left_files += facts["left_files"]
            elif began is not None:
                if "failed" in facts:
                    trial.failures.append((began, facts["failed"]))
                else:
                    trial.pieces.append(Piece(*began, facts["seconds"], _schema(facts["schema"]), data))
                began = None
        if status != 0:
            trial.failures.append((began or (0, 0), _death(spec, status)))
    trial.pieces.sort(key=lambda piece: piece.first)
    return trial


def _death(spec: TaskSpec, status: int) -> str:
    if status == -signal.SIGALRM:
        return f"took longer than {spec.resources.range_timeout_s:g} s"
    return f"the worker ended with {ending(status)}"


def _read(records: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The complete records of a file."""
    if not records.exists():
        return
    with records.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            facts = json.loads(line)
            data = file.read(facts["bytes"])
            if len(data) < facts["bytes"]:
                return
            yield facts, data


def _schema(told: dict[str, Any]) -> Schema:
    return Schema(
        columns=tuple(Column(**(c | {"item_shape": tuple(c["item_shape"])})) for c in told["columns"])
    )
