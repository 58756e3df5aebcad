"""Parts of the chain go away in the middle, and come back or do not: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.chain import (
    chain_task,
    checked_manifest,
    done,
    heads,
    journalled,
    only_services_left,
    serial_digest,
)
from support.services import Services, wait_for_task, wait_until

from hpcpanda.allocation.spool import Spool
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Resources


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Services]:
    """Services of the test's own; nothing is started yet."""
    services = Services(tmp_path)
    yield services
    services.stop()


def outputs(client: DispatcherClient, task_id: int, site: str = "laptop") -> IntervalSet:
    """The events of a finished task's only output, which is as its manifest says."""
    (file,) = client.outputs(task_id).files
    checked_manifest(file, client.task(task_id), site=site)
    return file.events


def test_the_dispatcher_is_away_for_ten_seconds(fresh: Services) -> None:
    """Killed while events are streamed, it is not missed: journals grow while it is away, and when it is back
    everything done is reported, and the task ends with every event once."""
    fresh.lookahead_s = 30.0
    fresh.start_dispatcher()
    fresh.start_edge()
    spec = chain_task(
        "generate", events=700, settings={"event_s": 0.03}, resources=Resources(event_seconds=0.03)
    )
    with fresh.client() as client:
        task_id = client.submit(spec).task_id
        wait_until(lambda: done(client, task_id) > 20, "the first commits")
    fresh.kill("dispatcher")
    away = time.monotonic()
    before = journalled(fresh.spool, task_id)[0]
    wait_until(lambda: journalled(fresh.spool, task_id)[0] > before + 100, "work without the dispatcher")
    wait_until(lambda: time.monotonic() - away > 8, "the rest of the time")
    assert "dispatcher-away" in fresh.log("edge")
    last = journalled(fresh.spool, task_id)[0]
    fresh.start_dispatcher()
    with fresh.client() as client:
        wait_until(lambda: done(client, task_id) >= last, "the report of what was done meanwhile")
        assert wait_for_task(client, task_id).state is TaskState.DONE
        assert outputs(client, task_id) == IntervalSet.span(0, 700)
    assert "dispatcher-back" in fresh.log("edge")


def test_a_killed_edge_picks_its_allocation_up_again(fresh: Services, tmp_path: Path) -> None:
    """The allocation goes on without its edge; the next one takes it over, the same allocation ends the task,
    and no event is run a second time."""
    fresh.start_dispatcher()
    fresh.start_edge()
    spec = chain_task("generate", events=400, settings={"event_s": 0.02})
    most = (0, IntervalSet())
    with fresh.client() as client:
        task_id = client.submit(spec).task_id
        wait_until(lambda: done(client, task_id) > 20, "the first commits")
        before = heads(fresh)
        assert len(before) == 1
        fresh.kill("edge")
        known = journalled(fresh.spool, task_id)[0]
        wait_until(lambda: journalled(fresh.spool, task_id)[0] > known, "work without the edge")
        fresh.start_edge()

        def ended() -> bool:
            nonlocal most
            most = max(most, journalled(fresh.spool, task_id), key=lambda found: found[0])
            return client.task(task_id).state.final

        wait_until(ended, "the end of the task", seconds=60)
        assert client.task(task_id).state is TaskState.DONE
        (file,) = client.outputs(task_id).files
        manifest = checked_manifest(file, client.task(task_id))
        assert file.digest == serial_digest(spec, tmp_path / "serial")
    assert most == (400, IntervalSet.span(0, 400))
    (allocation,) = before
    assert {Path(source.journal).name.split("-")[0] for source in manifest.sources} == {allocation}
    assert [p.name for p in (fresh.spool / "allocations").iterdir()] == [allocation]


def test_a_second_edge_of_the_same_name_is_refused(fresh: Services) -> None:
    """Over another spool, while the first one lives: it says which instance has the name, what to do, and
    exits with status 1; the first one is not disturbed."""
    fresh.start_dispatcher()
    fresh.start_edge()
    wait_until(lambda: "edge-registered" in fresh.log("edge"), "the first edge")
    fresh.start_edge("second", spool=fresh.folder / "other", options=("--name-patience", "2"))
    assert fresh.started.pop("second").wait(timeout=30) == 1
    last = fresh.log("second").strip().splitlines()[-1]
    assert last.startswith("hpcpanda-edge: edge 'laptop' is instance 'edge-")
    assert "stop that one, or wait until it has been silent for 60 s" in last
    assert "give this one another name" in last
    fresh.check_alive("edge")
    assert "registration-lost" not in fresh.log("edge")


def test_two_edges_share_a_task(fresh: Services) -> None:
    """Each merges what was made at its site; over both files every event is there once, with a serial run's
    values."""
    fresh.start_dispatcher()
    fresh.start_edge()
    fresh.start_edge("second", name="island", spool=fresh.folder / "island")
    wait_until(lambda: "edge-registered" in fresh.log("edge"), "the first edge")
    wait_until(lambda: "edge-registered" in fresh.log("second"), "the second edge")
    spec = chain_task("generate", events=1200, settings={"event_s": 0.01})
    with fresh.client() as client:
        task = wait_for_task(client, client.submit(spec).task_id)
        assert task.state is TaskState.DONE
        files = client.outputs(task.task_id).files
        assert "All 1200 events are in the outputs." in client.explain(task.task_id).reasons
    assert len(files) == 2
    seen: dict[int, float] = {}
    for file in files:
        site = "island" if "/island/" in file.path else "laptop"
        checked_manifest(file, task, site=site)
        with h5py.File(file.path) as content:
            pairs = list(zip(content["event"][:].tolist(), content["value"][:].tolist(), strict=True))
        assert not seen.keys() & dict(pairs).keys()
        assert len(dict(pairs)) == len(pairs) == len(file.events)
        seen |= dict(pairs)
    event = np.arange(1200, dtype=np.uint64)
    serial = ((event * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)) >> np.uint64(11)).astype("f8")
    assert [seen[n] for n in range(1200)] == serial.tolist()


def test_a_task_cancelled_while_it_runs(fresh: Services) -> None:
    """Its allocation drains, its journals and segments are deleted, and nothing is merged."""
    fresh.start_dispatcher()
    fresh.start_edge()
    with fresh.client() as client:
        task_id = client.submit(chain_task("generate", events=100_000, settings={"event_s": 0.01})).task_id
        wait_until(lambda: done(client, task_id) > 0, "the first commits")
        assert client.cancel(task_id).state is TaskState.ABORTED
        wait_until(lambda: not (fresh.spool / "tasks" / str(task_id)).exists(), "the clean-up")
        wait_until(lambda: only_services_left(fresh), "the end of the allocation")
        assert client.outputs(task_id).files == ()
        assert client.explain(task_id).reasons == ("It is aborted: cancelled by local",)
        assert client.task(task_id).state is TaskState.ABORTED
    fresh.check_alive("edge")


def test_a_drained_edge_gives_everything_back(fresh: Services) -> None:
    """``hpcpanda-edge drain`` returns when allocations have ended, what is done is committed, the rest is ready
    again, and the edge has ended; the next edge finishes the task."""
    fresh.start_dispatcher()
    fresh.start_edge()
    with fresh.client() as client:
        spec = chain_task("generate", events=500, settings={"event_s": 0.01})
        task_id = client.submit(spec).task_id
        wait_until(lambda: done(client, task_id) > 20, "the first commits")
        drained = fresh.run("hpcpanda-edge", "drain", "--site", str(fresh.site_file))
        assert drained.returncode == 0, drained.stderr
        assert fresh.started.pop("edge").wait(timeout=60) == 0
        assert only_services_left(fresh)
        progress = client.task(task_id).progress
        assert progress.leased == 0
        assert progress.ready + progress.done == 500
        fresh.start_edge()
        assert wait_for_task(client, task_id).state is TaskState.DONE
        assert outputs(client, task_id) == IntervalSet.span(0, 500)


def test_without_an_edge_a_task_says_what_it_waits_for(fresh: Services) -> None:
    """No edge at all; then an edge that was there and is silent for longer than the dispatcher waits."""
    fresh.environment["HPCPANDA_DISPATCHER_EDGE_ALIVE_SECONDS"] = "1"
    fresh.start_dispatcher()
    with fresh.client() as client:
        task_id = client.submit(chain_task("generate", events=10)).task_id
        assert client.explain(task_id).reasons == (
            "10 events are ready, waiting for an edge to ask for work.",
            "No edge has registered yet: nothing runs until one does.",
        )
        client.cancel(task_id)
        fresh.start_edge()
        wait_until(lambda: "edge-registered" in fresh.log("edge"), "the edge")
        fresh.kill("edge")
        task_id = client.submit(chain_task("generate", events=10)).task_id
        silent = re.compile(r"No edge is alive: the last heard of is laptop, \d+ s ago\.")
        wait_until(lambda: any(map(silent.fullmatch, client.explain(task_id).reasons)), "the explanation")


def test_tasks_wait_for_those_before_them(fresh: Services) -> None:
    """``explain`` names the task that is served first."""
    fresh.start_dispatcher()
    with fresh.client() as client:
        first = client.submit(chain_task("generate", events=10, name="first")).task_id
        second = client.submit(chain_task("generate", events=10)).task_id
        assert f"It waits behind task {first} (first), submitted earlier, which has 10 events ready." in (
            client.explain(second).reasons
        )


def test_a_spool_that_is_not_there_is_made(fresh: Services) -> None:
    """The edge makes its spool folder with all folders above it."""
    fresh.start_dispatcher()
    spool = fresh.folder / "not" / "there"
    fresh.start_edge(spool=spool)
    wait_until(lambda: "edge-registered" in fresh.log("edge"), "the edge")
    assert (spool / "edge" / "instance").is_file()


def test_a_spool_that_cannot_be_made_is_refused(fresh: Services) -> None:
    """The edge ends with status 1, the folder's name, and what to do."""
    (fresh.folder / "file").write_text("in the way")
    fresh.start_dispatcher()
    fresh.start_edge(spool=fresh.folder / "file" / "spool")
    assert fresh.started.pop("edge").wait(timeout=30) == 1
    log = fresh.log("edge")
    assert f"the spool folder cannot be used: {fresh.folder}/file/spool/edge: Not a directory" in log
    assert "name another one as 'spool' in the site file" in log
    assert log.count("\n") == 1


def mount(*words: str) -> None:
    """Mount a small file system; the test is skipped where that is not allowed."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(fresh: Services) -> Iterator[Path]:
    """The spool, on a file system of its own of 24 MB."""
    fresh.spool.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(fresh.spool))
    yield fresh.spool
    fresh.stop()
    subprocess.run(["umount", "-l", str(fresh.spool)], check=True)


def test_a_read_only_spool_is_refused(fresh: Services, small_disk: Path) -> None:
    """The edge ends with a clear error; when the folder can be written to, it starts."""
    fresh.start_dispatcher()
    mount("-o", "remount,ro", str(small_disk))
    fresh.start_edge()
    assert fresh.started.pop("edge").wait(timeout=30) == 1
    assert "the spool folder cannot be used" in fresh.log("edge")
    assert "Read-only file system; make it writable" in fresh.log("edge")
    mount("-o", "remount,rw", str(small_disk))
    fresh.start_edge()
    wait_until(lambda: "edge-registered" in fresh.log("edge"), "the edge")


def test_a_full_spool_stops_work_until_there_is_room(fresh: Services, small_disk: Path) -> None:
    """What fills the disk is said in the edge's log and status; nothing is lost, and when there is room again
    the task ends with every event once."""
    fresh.start_dispatcher()
    fresh.start_edge()
    spec = chain_task("generate", events=600, settings={"event_s": 0.01})
    with fresh.client() as client:
        task_id = client.submit(spec).task_id
        wait_until(lambda: done(client, task_id) > 20, "the first commits")
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            except OSError:
                pass
        wait_until(lambda: "disk is full" in fresh.log("edge"), "the word in the log", seconds=60)
        fresh.check_alive("edge")
        assert client.task(task_id).state is TaskState.RUNNING
        shown = fresh.run("hpcpanda-edge", "status", "--site", str(fresh.site_file), "-o", "json")
        assert shown.returncode == 0, shown.stderr
        json.loads(shown.stdout)
        filler.unlink()
        wait_until(lambda: "rounds-work-again" in fresh.log("edge"), "the other word in the log")
        assert wait_for_task(client, task_id).state is TaskState.DONE
        assert outputs(client, task_id) == IntervalSet.span(0, 600)
    wait_until(lambda: not Spool(small_disk).events(task_id).exists(), "the clean-up")
    assert fresh.log("edge").count("round-failed") < 10
