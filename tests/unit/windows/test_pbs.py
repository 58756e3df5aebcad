"""What PBS prints becomes windows."""

from __future__ import annotations

from datetime import datetime

import pytest
from hpcpanda_edge.windows.pbs import PlannedJob, find_windows, parse_jobs, parse_nodes, parse_reservations

from hpcpanda.domain.errors import CorruptData
from hpcpanda.packing.windows import BackfillWindow


def test_whole_free_nodes_are_windows_until_they_are_planned(samples: dict[str, str], noon: datetime) -> None:
    """Nodes with jobs, of other queues, or of a reservation without a known start are left out."""
    windows = find_windows(
        parse_nodes(samples["pbsnodes.json"]),
        parse_jobs(samples["qstat.json"]),
        parse_reservations(samples["pbs_rstat.txt"]),
        queue="prod",
        now=noon,
    )
    assert windows == (
        BackfillWindow(queue="prod", nodes=1),
        BackfillWindow(queue="prod", nodes=1, seconds=4 * 3600.0),
        BackfillWindow(queue="prod", nodes=1, seconds=3600.0),
    )


def test_estimates_are_read_flat_and_as_seconds(samples: dict[str, str]) -> None:
    """Some versions print estimated.start_time as one word, and times as seconds since 1970."""
    text = '{"Jobs":{"1.s":{"job_state":"Q","estimated.start_time":1795190400,"estimated.exec_vnode":"(n1:ncpus=1)"}}}'
    (job,) = parse_jobs(text)
    assert job.nodes == {"n1"}
    assert job.start == parse_jobs(samples["qstat.json"])[0].start


def test_a_planned_job_without_named_nodes_takes_its_number(samples: dict[str, str], noon: datetime) -> None:
    """A job that needs more nodes than are free bounds them all."""
    nodes = parse_nodes(samples["pbsnodes.json"])
    job = PlannedJob(start=noon.replace(hour=13), count=512, queue="prod")
    windows = find_windows(nodes, (job,), {}, queue="prod", now=noon)
    assert windows == (BackfillWindow(queue="prod", nodes=2, seconds=3600.0),)


def test_no_jobs_at_all(samples: dict[str, str]) -> None:
    """qstat leaves the jobs out when there are none."""
    assert parse_jobs('{"timestamp":1,"pbs_version":"22","pbs_server":"s"}') == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"nodes":{}}', '{"nodes":3}', "1" * 10_000])
def test_garbage_is_refused(text: str) -> None:
    """What is no listing of nodes is an error of the product, however deep or long."""
    with pytest.raises(CorruptData):
        parse_nodes(text)
