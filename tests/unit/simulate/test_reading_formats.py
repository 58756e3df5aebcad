"""Traces of each format are read to the same columns, and each flaw is counted, placed and mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.reading.formats import TraceFormat
from hpcpanda.simulate.reading.rows import FlawKind
from hpcpanda.simulate.reading.times import duration, moment
from hpcpanda.simulate.trace import HostTrace

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str) -> Path:
        path = tmp_path / "trace"
        path.write_text(text)
        return path

    return make


def swf(*fields: object) -> str:
    """A line of the Standard Workload Format: job, submit, wait, run, processors, requested processors and time, status."""
    job, submit, wait, run, procs, asked, limit, status = fields
    return f"{job} {submit} {wait} {run} {procs} -1 -1 {asked} {limit} -1 {status} 3 4 -1 1 -1 -1 -1\n"


def found(trace: HostTrace) -> dict[str, tuple[int, int]]:
    """Count and first line of each flaw."""
    return {flaw.kind: (flaw.count, flaw.first_line) for flaw in trace.flaws}


THE_JOBS = {
    TraceFormat.SWF: "; UnixStartTime: 1700000000\n; MaxNodes: 4\n; MaxProcs: 32\n"
    + swf(1, 0, 0, 100, 16, 16, 600, 1)
    + swf(2, 50, 60, 300, 8, 8, 400, 0),
    TraceFormat.ALCF: ",job,node_num,submit_time,wait_time,run_time,wall_time\n"
    "0,1,2.0,1700000000,0,100.0,600.0\n1,2,1.0,1700000050,60,300.0,400.0\n",
    TraceFormat.SLURM: "State|NNodes|Submit|Start|Elapsed|Timelimit|JobID|End|AllocNodes\n"
    "COMPLETED|2|2023-11-14T22:13:20|2023-11-14T22:13:20|00:01:40|00:10:00|1|2023-11-14T22:15:00|2\n"
    "|2||2023-11-14T22:13:20|00:01:40||1.batch||2\n"
    "FAILED|1|2023-11-14T22:14:10|2023-11-14T22:15:10|00:05:00|00:06:40|2|2023-11-14T22:20:10|1\n",
    TraceFormat.PBS: "11/14/2023 22:13:20;Q;1.s;queue=workq\n"
    "11/14/2023 22:15:00;E;1.s;user=u ctime=1700000000 qtime=1700000000 etime=1700000000 start=1700000000 "
    "exec_host=n1/0*8+n2/0*8 Resource_List.nodect=2 Resource_List.walltime=00:10:00 end=1700000100 "
    "resources_used.walltime=00:01:40\n"
    "11/14/2023 22:20:10;E;2.s;user=u qtime=1700000050 start=1700000110 end=1700000410 "
    "Resource_List.select=1:ncpus=8 Resource_List.walltime=00:06:40 resources_used.walltime=00:05:00\n",
}


@pytest.mark.parametrize("known", TraceFormat)
def test_the_same_jobs_are_read_from_every_format(write: Write, known: TraceFormat) -> None:
    """Two jobs, written in each format, give the same columns; the format is known from the content."""
    trace = read_trace(write(THE_JOBS[known]), nodes=4)
    assert str(known) in trace.source
    assert trace.epoch == 1_700_000_000
    assert trace.machine_nodes == 4
    np.testing.assert_array_equal(trace.submit, [0, 50])
    np.testing.assert_array_equal(trace.start, [0, 110])
    np.testing.assert_array_equal(trace.run, [100, 300])
    np.testing.assert_array_equal(trace.requested, [600, 400])
    np.testing.assert_array_equal(trace.nodes, [2, 1])
    assert set(found(trace)) <= {"job-steps"}


@pytest.mark.parametrize("known", TraceFormat)
def test_a_format_that_is_named_is_not_guessed(write: Write, known: TraceFormat) -> None:
    """And what does not fit it has no job."""
    path = write(THE_JOBS[known])
    assert len(read_trace(path, nodes=4, format=known)) == 2
    other = TraceFormat.PBS if known is not TraceFormat.PBS else TraceFormat.SWF
    with pytest.raises(InvalidValue, match=r"no job that can be replayed \(.* unparsable"):
        read_trace(path, nodes=4, format=other)


def test_an_unknown_format_says_what_is_known(write: Write) -> None:
    """The error names the formats and the option."""
    for text in ("", "hello\nworld\n", "1 2 3\n4 5 6\n", "JobID|State\n1|COMPLETED\n"):
        with pytest.raises(InvalidValue, match=r"no known format.*--format"):
            read_trace(write(text))


@pytest.mark.parametrize(
    ("line", "kind", "kept"),
    [
        ("1 2 three\n", "unparsable", False),
        ("9 10 0 5 nan -1 -1 1 10 -1 1\n", "unparsable", False),
        ("9 10 0 5 1e300 -1 -1 1 10 -1 1\n", "unparsable", False),
        (swf(9, 10, 0, 5, 1, 1, 10, 1).rstrip() + " and more\n", "extra-columns", True),
        (swf(9, 10, 0, 5, 1, 1, 10, 3), "partial-execution", False),
        (swf(9, 10, 4, 0, 1, 1, 10, 5), "never-started", False),
        (swf(9, 10, 4, -1, -1, 1, 10, 5), "never-started", False),
        (swf(9, -1, 4, 5, 1, 1, 10, 1), "unknown-submit", False),
        (swf(9, 10, 4, -1, 1, 1, 10, 1), "unknown-run-time", False),
        (swf(9, 10, 0, 0, 1, 1, 10, 1), "zero-run-time", True),
        (swf(9, 10, -1, 5, 1, 1, 10, 1), "unknown-start", True),
        (swf(9, 10, 0, 5, -1, -1, 10, 1), "unknown-nodes", False),
        (swf(9, 10, 0, 5, -1, 2, 10, 1), "requested-nodes", True),
        (swf(9, 10, 0, 5, 1, 1, -1, 1), "unknown-request", True),
        (swf(9, 10, 0, 50, 1, 1, 10, 1), "overrun", True),
        (swf(9, 0, 10, 5, 1, 1, 10, 1), "out-of-order", True),
        (swf(1, 5, 0, 5, 1, 1, 10, 1), "duplicate", False),
        (swf(9, 10, 0, 5, 5, 5, 10, 1), "too-wide", False),
    ],
)
def test_each_flaw_is_counted_and_mended(write: Write, line: str, kind: str, kept: bool) -> None:
    """One flawed line among good ones: its kind, its line number, and whether the job is in the trace."""
    head = "; MaxNodes: 4\n; MaxProcs: 4\n"
    good = swf(0, 0, 0, 1, 1, 1, 10, 1) + swf(1, 5, 0, 5, 1, 1, 10, 1)
    trace = read_trace(write(head + good + line))
    assert found(trace) == {kind: (1, 5)}
    assert len(trace) == (3 if kept else 2)
    assert (trace.run > 0).all()
    assert (trace.requested >= trace.run).all()
    assert (np.diff(trace.submit) >= 0).all()
    assert trace.flaws[0].remedy.endswith(".")


def test_a_start_before_its_submission_is_not_believed(write: Write) -> None:
    """A clock that ran backwards gives an unknown start."""
    text = THE_JOBS[TraceFormat.PBS].replace("qtime=1700000050", "qtime=1700000120")
    trace = read_trace(write(text), nodes=4)
    assert found(trace) == {"start-before-submit": (1, 3)}
    assert np.isnan(trace.start[1])


def test_what_waited_before_the_first_start_is_the_first_queue(write: Write) -> None:
    """Submissions long before the trace's first start do not make a long idle beginning."""
    text = swf(0, 0, 1000, 50, 1, 1, 60, 1) + swf(1, 900, 50, 50, 1, 1, 60, 1) + swf(2, 960, 0, 5, 1, 1, 9, 1)
    trace = read_trace(write(text), nodes=4, cores_per_node=1)
    np.testing.assert_array_equal(trace.submit, [0, 0, 10])
    np.testing.assert_array_equal(trace.start, [50, 0, 10])
    assert found(trace) == {"waited-before": (2, 1)}


def test_a_job_that_ran_twice_is_no_duplicate(write: Write) -> None:
    """A requeued job has the same number and other times."""
    text = THE_JOBS[TraceFormat.SLURM] + THE_JOBS[TraceFormat.SLURM].splitlines()[-1].replace(
        "22:15:10", "22:45:10"
    )
    assert len(read_trace(write(text), nodes=4)) == 3


@pytest.mark.parametrize(
    ("told", "header", "nodes", "kinds", "machine"),
    [
        (None, "", [12, 5], {"processors-as-nodes", "machine-size"}, 17),
        (8, "", [2, 1], {"rounded-to-nodes", "machine-size"}, 3),
        (None, "; MaxNodes: 10\n; MaxProcs: 40\n", [3, 2], {"rounded-to-nodes"}, 10),
        (5, "; MaxNodes: 10 (two broken)\n; MaxProcs: 42\n", [3, 1], {"rounded-to-nodes"}, 9),
    ],
)
def test_processors_are_made_into_nodes(
    write: Write, told: int | None, header: str, nodes: list[int], kinds: set[str], machine: int
) -> None:
    """By what the user tells, else by the header, else each for one, and that is noted; as is the machine's size."""
    text = header + swf(1, 0, 0, 50, 12, 12, 60, 1) + swf(2, 0, 0, 50, 5, 5, 60, 1)
    trace = read_trace(write(text), cores_per_node=told)
    assert list(trace.nodes) == nodes
    assert set(found(trace)) == kinds
    assert trace.machine_nodes == machine


def test_lists_of_nodes_tell_nodes_and_who_shared_them(write: Write) -> None:
    """Distinct nodes of the list count, blanks or not; jobs that overlap on a node are found, those after another are not."""
    rows = [(0, 100, "{7,7,8}"), (50, 10, "{ 8, 9 }"), (100, 50, "{7,8}"), (120, 5, "{9}"), (121, 1, "{}")]
    text = "".join(
        swf(i, submit, 0, run, 3, 3, 200, 1).rstrip() + f" {nodes} queue\n"
        for i, (submit, run, nodes) in enumerate(rows)
    )
    trace = read_trace(write(text))
    assert list(trace.nodes) == [2, 2, 2, 1, 3]
    assert found(trace)["shared-nodes"] == (2, 1)
    (shared,) = (f for f in trace.flaws if f.kind == "shared-nodes")
    assert "4 at once at most" in shared.remedy
    assert "name 3 nodes" in shared.remedy
    assert list(read_trace(write(text), cores_per_node=3).nodes) == [1, 1, 1, 1, 1]


def test_a_long_job_shares_with_every_later_one_on_its_node(write: Write) -> None:
    """Also when others on the node ended in between."""
    rows = [(0, 1000, "{1}"), (10, 5, "{1}"), (500, 5, "{1}"), (2000, 5, "{1}")]
    text = "".join(
        swf(i, at, 0, run, 1, 1, 2000, 1).rstrip() + f" {nodes}\n" for i, (at, run, nodes) in enumerate(rows)
    )
    assert found(read_trace(write(text)))["shared-nodes"] == (3, 1)


SACCT = "JobID|Submit|Start|End|Elapsed|Timelimit|AllocNodes|NNodes|State\n"


@pytest.mark.parametrize(
    ("line", "kinds", "count"),
    [
        ("7|2026-01-01T00:00:00|Unknown|Unknown|00:00:00|01:00:00|0|2|PENDING", {"never-started"}, 1),
        ("7|2026-01-01T00:00:00|None|2026-01-01T01:00:00|00:00:00|01:00:00|0|2|CANCELLED by 7", {"never-started"}, 1),
        (
            "7|2026-01-01T00:00:00|2026-01-01T01:00:00|2026-01-01T01:00:00|00:00:00|01:00:00|0|2|CANCELLED by 7",
            {"never-started"},
            1,
        ),
        ("7|2026-01-01T00:00:00|2026-01-01T01:00:00|Unknown|00:09:00|01:00:00|2|2|RUNNING", {"still-running"}, 2),
        ("7_3|1767225600|1767229200|1767229500|00:05:00|UNLIMITED|2|2|TIMEOUT", {"unknown-request"}, 2),
        ("7+1|1767225600|1767229200|1767229500||1-00:00:00|2K|2K|COMPLETED", set(), 2),
        ("7|1767225600|1767229200|1767229500|00:05:00|Partition_Limit||3|COMPLETED", {"unknown-request"}, 2),
        ("RUNAWAY JOBS|are|listed|here|x|y|z|u|v", {"unparsable"}, 1),
    ],
)  # fmt: skip
def test_what_slurm_writes_of_unusual_jobs(write: Write, line: str, kinds: set[str], count: int) -> None:
    """Jobs in the queue, running, cancelled, of arrays and groups, without limit; numbers of nodes with K."""
    good = (
        "1|2026-01-01T00:00:00|2026-01-01T00:00:00|2026-01-02T00:00:00|1-00:00:00|1-00:00:00|2|2|COMPLETED\n"
    )
    trace = read_trace(write(SACCT + good + line + "\n"), nodes=5000)
    assert set(found(trace)) == kinds
    assert len(trace) == count
    assert trace.run[0] == 86_400


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        ("exec_host=a/0+a/1+b/0 Resource_List.nodect=3", 2),
        ("Resource_List.nodect=3 Resource_List.select=1:ncpus=4", 3),
        ("Resource_List.select=2:ncpus=8+ncpus=1+3", 6),
    ],
)
def test_nodes_of_a_pbs_job(write: Write, words: str, nodes: int) -> None:
    """The hosts it had, else the nodes counted, else the chunks asked for."""
    record = f"01/01/2026 00:00:00;E;1.s;qtime=1767225600 start=1767225601 end=1767225700 {words}\n"
    trace = read_trace(write(record))
    assert list(trace.nodes) == [nodes]
    assert list(trace.run) == [99]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:01:40", 100),
        ("100:00:00", 360_000),
        ("02:03", 123),
        ("02:03.5", 123.5),
        ("90", 90),
        ("1-02", 93_600),
        ("1-02:30", 95_400),
        ("2-00:00:01", 172_801),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """As sacct and PBS write them."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["x", "1:2:3:4", "-", "-1:00", "nan", "1e99"])
def test_no_durations(text: str) -> None:
    """What is neither a duration nor a word for none is refused."""
    with pytest.raises(ValueError):
        duration(text)


def test_dates_have_zones_or_are_utc() -> None:
    """A zone is heeded; without one the date is UTC."""
    assert moment("2026-01-01T12:34:56") == moment("2026-01-01 12:34:56") == moment("2026-01-01T12:34:56.0")
    assert moment("2026-01-01T00:00:00") == moment("2026-01-01T02:00:00+02:00") == moment("1767225600")


@pytest.mark.parametrize(
    "text",
    ["2026-13-01T00:00:00", "2026-01-01T24:00:01", "2026-01-01T00:00:0x", "yesterday", "2026-01-01T+1:00:00"],
)
def test_no_dates(text: str) -> None:
    """What is no date is refused."""
    with pytest.raises(ValueError):
        moment(text)


def test_every_kind_of_flaw_says_what_is_done() -> None:
    """And has a name without blanks, in the documentation."""
    page = (Path(__file__).parents[3] / "docs/reference/traces.md").read_text()
    for kind in FlawKind:
        assert kind.remedy.endswith(".")
        assert " " not in kind.value
        assert f"`{kind.value}`" in page
    assert all(f"`{known.value}`" in page for known in TraceFormat)
