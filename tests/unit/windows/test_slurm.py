"""What Slurm prints becomes windows: free nodes until somebody else is planned on them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hpcpanda_edge.windows.slurm import (
    find_windows,
    in_default_partition,
    is_free,
    parse_jobs,
    parse_nodes,
    parse_reservations,
    parse_test_only,
)

from hpcpanda.domain.errors import CorruptData
from hpcpanda.packing.windows import BackfillWindow


@pytest.mark.parametrize(
    "state", ["idle", "IDLE", "idle-", "idle~", "planned", "plnd", "IDLE+PLANNED", "IDLE+CLOUD"]
)
def test_free_states(state: str) -> None:
    """A node that is idle, planned for later, or asleep can be used now."""
    assert is_free(state)


@pytest.mark.parametrize(
    "state",
    [
        "idle*",
        "idle#",
        "idle!",
        "idle%",
        "idle$",
        "idle@",
        "idle^",
        "mixed-",
        "mix",
        "alloc",
        "maint",
        "down*",
        "resv",
        "drained",
        "IDLE+DRAIN",
        "IDLE+RESERVED",
        "IDLE+MAINTENANCE",
        "completing",
        "unheard-of",
        "",
        "*",
    ],
)
def test_other_states(state: str) -> None:
    """A node that does not answer, is used, set aside, or in a state never heard of cannot."""
    assert not is_free(state)


def test_free_nodes_are_windows_until_the_first_claim(samples: dict[str, str], noon: datetime) -> None:
    """Planned nodes end with the plan, reserved ones with the reservation, the rest with the maintenance."""
    windows = find_windows(
        parse_nodes(samples["sinfo.txt"]),
        parse_jobs(samples["squeue.txt"]),
        parse_reservations(samples["reservations.txt"]),
        noon,
    )
    assert windows == (
        BackfillWindow(queue="debug", nodes=1, seconds=1800.0),
        BackfillWindow(queue="regular", nodes=2, seconds=18 * 3600.0),
        BackfillWindow(queue="regular", nodes=1, seconds=2 * 3600.0),
        BackfillWindow(queue="regular", nodes=2, seconds=70 * 60.0),
    )


def test_without_plans_the_partition_bounds_a_window(samples: dict[str, str], noon: datetime) -> None:
    """With nobody waiting a node is free for the longest walltime of its partition."""
    windows = find_windows(parse_nodes("n1|p*|idle|up|1-02:03:04\nn2|q|idle|up|infinite"), (), (), noon)
    assert windows == (
        BackfillWindow(queue="p", nodes=1, seconds=93_784.0),
        BackfillWindow(queue="q", nodes=1),
    )


def test_the_first_waiting_job_without_a_start_is_given_one(noon: datetime) -> None:
    """It starts when enough running jobs have ended, and takes the free nodes it lacks from then on."""
    nodes = parse_nodes("".join(f"n{i}|p*|idle|up|infinite\n" for i in range(4)))
    jobs = parse_jobs(
        "R|p|2|2026-11-20T11:00:00|2026-11-20T13:00:00||None\n"
        "R|p|2|2026-11-20T11:00:00|2026-11-20T15:00:00||None\n"
        "PD|p|5|N/A|N/A|(null)|(Resources)\n"
        "PD|p|8|N/A|N/A|(null)|(Priority)\n"
    )
    assert find_windows(nodes, jobs, (), noon) == (
        BackfillWindow(queue="p", nodes=1),
        BackfillWindow(queue="p", nodes=3, seconds=3600.0),
    )


def test_a_job_waiting_for_something_else_bounds_nothing(noon: datetime) -> None:
    """When there are enough free nodes, it is not nodes that the first job waits for."""
    nodes = parse_nodes("n1|p*|idle|up|infinite")
    assert find_windows(nodes, parse_jobs("PD|p|1|N/A|N/A|(null)|Resources"), (), noon) == (
        BackfillWindow(queue="p", nodes=1),
    )


def test_a_claim_that_cannot_be_read_takes_as_many_nodes(noon: datetime) -> None:
    """Of a plan whose host list names a million million nodes, only the number of nodes is believed."""
    nodes = parse_nodes("n1|p*|idle|up|infinite\nn2|p*|idle|up|infinite")
    jobs = parse_jobs("PD|p|1|2026-11-20T13:00:00|N/A|n[0-999999999999]|Resources")
    assert find_windows(nodes, jobs, (), noon) == (
        BackfillWindow(queue="p", nodes=1),
        BackfillWindow(queue="p", nodes=1, seconds=3600.0),
    )


def test_a_start_that_is_overdue_takes_its_nodes_now(noon: datetime) -> None:
    """A job that should have started already leaves no window."""
    nodes = parse_nodes("n1|p*|idle|up|infinite")
    assert find_windows(nodes, parse_jobs("PD|p|1|2026-11-20T11:59:00|N/A|n1|Resources"), (), noon) == ()


def test_only_the_default_partition_counts_when_none_is_said(samples: dict[str, str]) -> None:
    """A request without a partition goes to the default one, so only its nodes matter."""
    nodes = in_default_partition(parse_nodes(samples["sinfo.txt"]))
    assert {node.partition for node in nodes} == {"regular"}
    with pytest.raises(CorruptData, match=r"scheduler\.queue"):
        in_default_partition(parse_nodes("n1|p|idle|up|infinite"))


def test_reservations_are_read_in_both_layouts(samples: dict[str, str]) -> None:
    """Records of several lines, and names with blanks, are read like one-line records."""
    text = samples["reservations.txt"]
    assert parse_reservations(text.replace(" Nodes=", "\n   Nodes=")) == parse_reservations(text)
    assert len(parse_reservations(text)) == 3
    assert parse_reservations("No reservations in the system\n") == ()


@pytest.mark.parametrize(
    "text", ["", "\n\n", "slurm_load_partitions: Unable to contact slurm controller", "a|b"]
)
def test_output_without_a_node_is_not_taken_for_an_empty_machine(text: str) -> None:
    """An answer that names no node is an error: the partition does not exist, or the format is another."""
    with pytest.raises(CorruptData):
        parse_nodes(text)


@pytest.mark.parametrize(
    "line",
    [
        "sbatch: Job 62266174 to start at 2026-11-20T13:22:03 using 4 processors on nodes n[1-2] in partition htc",
        "sbatch: Job 62266174 to start at 2026-11-20T13:22:03 a using 4 processors on nodes n[1-2] in partition htc",
        "noise\nsbatch: Job 7 to start at 2026-11-20T13:22:03 using 4 processors on n[1-2]\nsbatch: Preempts: 3",
    ],
)
def test_the_expected_start_of_a_shape(line: str) -> None:
    """sbatch --test-only tells when and where a request would start, in the words of several versions."""
    expected = parse_test_only(line)
    assert expected is not None
    assert expected.start == datetime(2026, 11, 20, 13, 22, 3, tzinfo=UTC)
    assert expected.hosts == "n[1-2]"


def test_a_refused_shape_has_no_start() -> None:
    """A refusal is not a start."""
    assert parse_test_only("allocation failure: Requested node configuration is not available") is None
