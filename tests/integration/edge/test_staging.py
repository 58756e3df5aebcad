"""The stager as the edge uses it: real files, real kills, a disk that is too small."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hpcpanda_edge.staging import Incoming, Outgoing, Stager, staged_spec
from hpcpanda_edge.staging.book import Retry

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.site import LimitSettings, NodeSettings, Site
from hpcpanda.domain.task import Staging, TaskSpec

T = TypeVar("T")
FAST = Retry(attempts=3, first_s=0.02, factor=2.0, room_s=0.05)
span = IntervalSet.span


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Inputs of jobs: 0 to 9, and one of all."""
    folder = tmp_path / "data"
    folder.mkdir()
    for job in range(10):
        (folder / f"{job}.lhe").write_bytes(b"%d" % job * 1000)
    (folder / "common").write_bytes(b"common")
    return folder


def site(spool: Spool, *, streams: int = 2, reserve_mb: int = 0) -> Site:
    return Site(
        name="here",
        spool=str(spool.path),
        nodes=NodeSettings(count=1, cores=1, memory_mb=100),
        limits=LimitSettings(staging_streams=streams, staging_reserve_mb=reserve_mb),
    )


def jobs_task(data: Path, *, destination: Path | str | None = None, priority: int = 0) -> TaskSpec:
    return TaskSpec(
        name="t",
        payload=JobPayload(command=("run",), inputs=(f"{data}/{{job}}.lhe", f"{data}/common")),
        jobs=10,
        output=Output(file="t.zip", format=OutputFormat.ZIP),
        staging=Staging(inputs="copy", destination=str(destination) if destination else None),
        priority=priority,
    )


def events_task(*paths: Path, destination: Path | None = None) -> TaskSpec:
    return TaskSpec(
        name="t",
        payload=CommandPayload(command=("run", "{output}")),
        inputs=Inputs(format=InputFormat.LHE, files=tuple(InputFile(path=str(p), events=10) for p in paths)),
        output=Output(file="t.dat", format=OutputFormat.CONCAT),
        staging=Staging(inputs="copy", destination=str(destination) if destination else None),
    )


@contextlib.asynccontextmanager
async def running(stager: Stager) -> AsyncIterator[Stager]:
    """Its own asyncio task, as in the edge."""
    task = asyncio.create_task(stager.run())
    try:
        yield stager
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(ask: Callable[[], T], good: Callable[[T], object]) -> T:
    """Ask again and again, as the edge's rounds do."""
    async with asyncio.timeout(20):
        while True:
            answer = ask()
            if good(answer):
                return answer
            await asyncio.sleep(0.005)


def paths_of(spec: TaskSpec, spool: Spool, task_id: int, job: int) -> list[Path]:
    return [Path(p.replace("{job}", str(job))) for p in staged_spec(spec, spool, task_id).input_paths]


async def test_jobs_that_are_here_get_their_inputs_and_lose_them_when_they_are_over(
    spool: Spool, data: Path
) -> None:
    """A job is ready when all its files are in place; others are not copied; forgetting leaves nothing."""
    spec = jobs_task(data)
    async with running(Stager(spool, site(spool))) as stager:
        first = stager.want(7, spec, span(2, 5))
        assert (first.ready, first.waiting) == (EMPTY, "staging begins")
        ready = await until(lambda: stager.want(7, spec, span(2, 5)), lambda a: a.ready == span(2, 5))
        assert ready == Incoming(span(2, 5))
        for job in range(10):
            own, common = paths_of(spec, spool, 7, job)
            assert own.exists() == (2 <= job < 5)
            assert common.read_bytes() == b"common"
        assert paths_of(spec, spool, 7, 3)[0].read_bytes() == b"3" * 1000
        await until(lambda: stager.want(7, spec, span(4, 6)), lambda a: a.ready == span(4, 6))
        await until(paths_of(spec, spool, 7, 2)[0].exists, lambda there: not there)
        assert paths_of(spec, spool, 7, 4)[0].exists()
        await stager.forget(7)
    assert not (spool.path / "tasks" / "7").exists()


async def test_in_place_means_ready(spool: Spool, data: Path) -> None:
    """A task that asks for nothing costs nothing."""
    spec = TaskSpec(
        name="t",
        payload=JobPayload(command=("run",), inputs=("/nowhere/{job}",)),
        jobs=10,
        output=Output(file="t.zip", format=OutputFormat.ZIP),
    )
    stager = Stager(spool, site(spool))
    assert stager.want(7, spec, span(0, 10)) == Incoming(span(0, 10))
    output = merged(spool, "t.zip")
    assert stager.want_out(7, spec, output) == Outgoing(output)


async def test_two_tasks_of_one_file_have_one_copy(spool: Spool, data: Path) -> None:
    """Asked for at the same time; and the one keeps it when the other goes."""
    spec = events_task(data / "0.lhe", data / "1.lhe")
    everything = span(0, 20)
    async with running(Stager(spool, site(spool, streams=4))) as stager:
        for task_id in (1, 2, 3):
            stager.want(task_id, spec, everything)
        for task_id in (1, 2, 3):
            await until(
                lambda t=task_id: stager.want(t, spec, everything),  # type: ignore[misc]
                lambda a: a.ready == everything,
            )
        copies = [Path(staged_spec(spec, spool, t).input_paths[0]) for t in (1, 2, 3)]
        assert copies[0].samefile(copies[1])
        assert copies[0].stat().st_nlink == 3
        await stager.forget(1)
        await stager.forget(2)
        assert copies[2].read_bytes() == b"0" * 1000


async def test_an_input_that_is_late_is_waited_for(spool: Spool, data: Path) -> None:
    """The reason is told meanwhile, and the other jobs are ready."""
    spec = jobs_task(data)
    (data / "1.lhe").rename(data / "away")
    retry = Retry(attempts=1000, first_s=0.01, factor=1.0)
    async with running(Stager(spool, site(spool), retry=retry)) as stager:
        seen = await until(
            lambda: stager.want(7, spec, span(0, 3)), lambda a: a.ready == span(0, 1) | span(2, 3)
        )
        seen = await until(lambda: stager.want(7, spec, span(0, 3)), lambda a: "No such" in (a.waiting or ""))
        assert seen.waiting == (
            f"1 input file is still to be copied; {data}/1.lhe: No such file or directory"
        )
        (data / "away").rename(data / "1.lhe")
        await until(lambda: stager.want(7, spec, span(0, 3)), lambda a: a == Incoming(span(0, 3)))


async def test_an_input_that_never_comes_is_a_fault(spool: Spool, data: Path) -> None:
    """After as many tries as are allowed; another task is not concerned."""
    (data / "1.lhe").unlink()
    spec, other = jobs_task(data), events_task(data / "2.lhe")
    async with running(Stager(spool, site(spool), retry=FAST)) as stager:
        seen = await until(lambda: stager.want(7, spec, span(0, 3)), lambda a: a.fault)
        assert seen.fault == (
            f"an input cannot be staged, tried 3 times: {data}/1.lhe: No such file or directory"
        )
        await until(lambda: stager.want(8, other, span(0, 10)), lambda a: a.ready == span(0, 10))


async def test_never_more_streams_than_the_site_allows(spool: Spool, data: Path) -> None:
    """Over three tasks of ten files each; the more urgent task is first."""
    seen: list[int] = []
    finished: list[int] = []
    async with running(Stager(spool, site(spool, streams=3))) as stager:
        specs = {n: jobs_task(data, priority=n) for n in (1, 2, 3)}
        left = set(specs)
        async with asyncio.timeout(20):
            while left:
                for n in list(left):
                    if stager.want(n, specs[n], span(0, 10)).ready == span(0, 10):
                        left.discard(n)
                        finished.append(n)
                seen.append(sum(w.original is not None for w in stager._under_way))
                await asyncio.sleep(0)
    assert max(seen) == 3
    assert finished == [3, 2, 1]


KILLED = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_staging import *
real, calls = os.copy_file_range, []
def slow(*args):
    calls.append(args)
    if args[2] > 2**20 and args[3]:
        print("in the middle", flush=True)
        import time; time.sleep(60)
    return real(*args)
os.copy_file_range = slow
from hpcpanda_edge.staging import copying
copying._IN_KERNEL = 2**21
async def main():
    spool = Spool(Path(sys.argv[1]))
    async with running(Stager(spool, site(spool, streams=1))) as stager:
        while True:
            stager.want(7, jobs_task(Path(sys.argv[2])), span(0, 3))
            await asyncio.sleep(0.01)
asyncio.run(main())
"""


async def test_killed_in_the_middle_of_a_copy_the_next_edge_goes_on(spool: Spool, data: Path) -> None:
    """Finished copies are not made again; the half one is never seen."""
    big = os.urandom(2**20) * 5
    (data / "1.lhe").write_bytes(big)
    command = [sys.executable, "-c", KILLED, str(spool.path), str(data), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            lines = iter(child.stdout.readline, b"")
            assert await asyncio.to_thread(lambda: any(line == b"in the middle\n" for line in lines))
        finally:
            child.send_signal(signal.SIGKILL)
    spec = jobs_task(data)
    done, half = paths_of(spec, spool, 7, 0)[0], paths_of(spec, spool, 7, 1)[0]
    unfinished = list((spool.path / "tasks/7/input").glob(".part-*"))
    assert len(unfinished) == 1
    assert 0 < unfinished[0].stat().st_size < len(big)
    assert not half.exists()
    before = done.stat().st_ino
    async with running(Stager(spool, site(spool))) as stager:
        await until(lambda: stager.want(7, spec, span(0, 3)), lambda a: a.ready == span(0, 3))
    assert half.read_bytes() == big
    assert done.stat().st_ino == before
    assert not list((spool.path / "tasks/7/input").glob(".part-*"))


async def test_forgetting_and_ending_stop_what_is_under_way(spool: Spool, data: Path) -> None:
    """A copy of gigabytes does not hold up the edge's end, nor a task's."""
    with (data / "0.lhe").open("wb") as file:
        for _ in range(64):
            file.write(bytes(2**22))
    spec = events_task(data / "0.lhe")
    folder = spool.path / "tasks" / "7"
    async with running(Stager(spool, site(spool))) as stager:
        stager.want(7, spec, span(0, 10))
        await until(lambda: list(folder.glob("input/.part-*")), bool)
        await stager.forget(7)
        assert not folder.exists()
        stager.want(7, spec, span(0, 10))
        await until(lambda: list(folder.glob("input/.part-*")), bool)
    assert [p for p in folder.rglob("*") if p.is_file()] == []


@pytest.fixture
def small_spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool of four mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield Spool(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_spool_delays_and_old_copies_make_room(small_spool: Spool, data: Path) -> None:
    """The reason is told; it goes on when there is room, and what nobody needs any more gives way."""
    for job in range(4):
        (data / f"{job}.lhe").write_bytes(bytes(2**20))
    spec = events_task(*(data / f"{n}.lhe" for n in range(4)))
    (small_spool.path / "segments").write_bytes(bytes(2**20))
    limits = site(small_spool, streams=1, reserve_mb=1)
    async with running(Stager(small_spool, limits, retry=FAST)) as stager:
        seen = await until(
            lambda: stager.want(7, spec, span(0, 40)), lambda a: "no room" in (a.waiting or "")
        )
        assert "2 input files are still to be copied; no room for " in str(seen.waiting)
        assert seen.ready == span(0, 20)
        for _ in range(10 * FAST.attempts):  # it never becomes a fault
            await asyncio.sleep(0.01)
        assert stager.want(7, spec, span(0, 40)).fault is None
        seen = await until(lambda: stager.want(7, spec, span(10, 30)), lambda a: a.ready == span(10, 30))
        assert not Path(staged_spec(spec, small_spool, 7).input_paths[0]).exists()
        (small_spool.path / "segments").unlink()
        await until(lambda: stager.want(7, spec, span(10, 40)), lambda a: a.ready == span(10, 40))


# ---- stage-out ----


def merged(spool: Spool, name: str, data: bytes = b"merged") -> OutputFile:
    """A merged file of task 7 in the spool."""
    folder = spool.output(7)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    (folder / f"{name}.manifest.json").write_bytes(b"{}")
    return OutputFile(
        task_id=7,
        path=str(folder / name),
        manifest=str(folder / f"{name}.manifest.json"),
        events=span(0, 10),
        digest="sha256:0",
        size=len(data),
    )


async def test_an_output_goes_where_the_user_wants_it(spool: Spool, data: Path, tmp_path: Path) -> None:
    """The report has the new path; an edge that was killed before it wrote that down hears the same again."""
    out = tmp_path / "out"
    out.mkdir()
    spec = jobs_task(data, destination=f"{out}/{{site}}/{{task}}")
    output = merged(spool, "t.zip")
    async with running(Stager(spool, site(spool))) as stager:
        assert stager.want_out(7, spec, output) == Outgoing(
            waiting=f"its output is being moved to {out}/here/7"
        )
        done = await until(lambda: stager.want_out(7, spec, output), lambda a: a.output)
    assert done.output is not None
    assert done.output.path == f"{out}/here/7/t.zip"
    assert Path(done.output.path).read_bytes() == b"merged"
    assert Path(done.output.manifest).read_bytes() == b"{}"
    assert not spool.output(7).exists()
    async with running(Stager(spool, site(spool))) as stager:
        assert await until(lambda: stager.want_out(7, spec, output), lambda a: a.output) == done
        jobs = await until(lambda: stager.want(7, spec, span(0, 1)), lambda a: a.ready or a.fault)
        assert jobs.fault is None, "its own output is not in its way"
        await stager.forget(7)
    assert not (spool.path / "tasks" / "7").exists()
    assert Path(done.output.path).read_bytes() == b"merged"


async def test_a_destination_that_comes_back_is_waited_for(spool: Spool, data: Path, tmp_path: Path) -> None:
    """A merged campaign is not thrown away because a file system is away for a while; the reason is told."""
    spec = jobs_task(data, destination=tmp_path / "out")
    output = merged(spool, "t.zip")
    async with running(Stager(spool, site(spool), retry=FAST)) as stager:
        told = await until(lambda: stager.want_out(7, spec, output), lambda a: "no such" in (a.waiting or ""))
        assert told.waiting == (
            f"its output cannot be moved yet: {tmp_path}/out: there is no such folder; make it"
        )
        (tmp_path / "out").mkdir()
        await until(lambda: stager.want_out(7, spec, output), lambda a: a.output)


async def test_another_file_at_the_destination_is_a_fault(spool: Spool, data: Path, tmp_path: Path) -> None:
    """At the start of a task, before anything is computed; and at its end, with both files kept."""
    (tmp_path / "t.zip").write_bytes(b"users own")
    spec = jobs_task(data, destination=tmp_path)
    async with running(Stager(spool, site(spool), retry=FAST)) as stager:
        early = await until(lambda: stager.want(7, spec, span(0, 10)), lambda a: a.fault)
        assert "exists already and is never overwritten" in str(early.fault)
        assert early.ready == EMPTY
        output = merged(spool, "t.zip")
        late = await until(lambda: stager.want_out(7, spec, output), lambda a: a.fault)
        assert f"{tmp_path}/t.zip exists already and is another file" in str(late.fault)
    assert (tmp_path / "t.zip").read_bytes() == b"users own"
    assert Path(output.path).read_bytes() == b"merged"


async def test_a_destination_alone_is_looked_at_too(spool: Spool, tmp_path: Path) -> None:
    """A task that reads in place begins when its destination is known to be good."""

    def spec(destination: Path) -> TaskSpec:
        return TaskSpec(
            name="t",
            payload=CommandPayload(command=("run", "{output}")),
            events=100,
            output=Output(file="t.dat", format=OutputFormat.CONCAT),
            staging=Staging(destination=str(destination)),
        )

    async with running(Stager(spool, site(spool))) as stager:
        await until(
            lambda: stager.want(1, spec(tmp_path), span(0, 100)), lambda a: a == Incoming(span(0, 100))
        )
        bad = await until(lambda: stager.want(2, spec(tmp_path / "no"), span(0, 100)), lambda a: a.fault)
        assert "there is no such folder at this site; make it first" in str(bad.fault)
