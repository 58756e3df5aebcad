"""A campaign of mixed jobs and events on a real Slurm, through preemptions, a lost node, a killed edge and an absent
dispatcher. A short form runs with all tests, the full one by ``make campaign``."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcpanda.allocation.timeline_picture import draw_timelines
from hpcpanda.domain.errors import Unavailable
from tests.support.campaign import FULL, SHORT, Campaign
from tests.support.campaign_figures import (
    allocations_that_never_ran,
    given_node_seconds,
    lives,
    needed_core_seconds,
    weighed,
)
from tests.support.campaign_weather import Storm, Weather, drive
from tests.support.chain import only_services_left
from tests.support.services import wait_until
from tests.support.slurm import NotInstalled, SlurmCluster, cluster
from tests.support.slurm_services import NAME, SlurmServices

IS_FULL = os.environ.get("HPCPANDA_CAMPAIGN") == "full"
SEED = int(os.environ.get("HPCPANDA_CAMPAIGN_SEED", "1"))
KEEP = os.environ.get("HPCPANDA_CAMPAIGN_KEEP")
"""Folder that gets the spool, the logs and the timeline picture."""
CORES = 4
"""Of each pretended node: 16 in all, on however few this machine has. Payloads sleep."""

if IS_FULL:
    SCALE, SECONDS = FULL, 1500.0
    FOUL = Weather(
        over_s=360.0, preemptions=3, preempted_s=25.0, lost_nodes=1, edge_kills=5, dispatcher_away_s=120.0
    )
else:
    SCALE, SECONDS = SHORT, 200.0
    FOUL = Weather(
        over_s=16.0, preemptions=1, preempted_s=3.0, lost_nodes=0, edge_kills=2, dispatcher_away_s=5.0
    )
WEATHERS = [pytest.param(FOUL, id="edge-killed-dispatcher-away")]
if IS_FULL:
    rough = Weather(over_s=320.0, preemptions=3, preempted_s=25.0, lost_nodes=1)
    WEATHERS.insert(0, pytest.param(rough, id="preempted"))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """Four nodes of four cores."""
    try:
        with cluster(cpus=CORES) as made:
            for name, value in made.variables.items():
                monkeypatch.setenv(name, value)
            yield made
    except NotInstalled as problem:
        pytest.skip(str(problem))


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("weather", WEATHERS)
def test_everything_ends_in_the_right_state(
    pretended: SlurmCluster, tmp_path: Path, weather: Weather
) -> None:
    """Each job that can succeed is in its archive once and was tried once, each bad one failed for its own reason, the
    events are those of a serial run, and nothing is left running."""
    campaign = Campaign(SCALE, SEED)
    services = SlurmServices(
        tmp_path, nodes=pretended.count, cores=CORES, walltime_s=240.0, lookahead_s=10.0, linger_s=2.0,
        allocations=4,
    )  # fmt: skip
    storm = Storm(weather, SEED, pretended, services)
    print(f"\ncampaign of {SCALE.jobs} jobs and {SCALE.events} events, seed {SEED}")
    try:
        _run(campaign, storm)
        with services.client() as client:
            campaign.check(client)
        _tell_figures(campaign, storm)
    finally:
        services.stop()
        if KEEP:
            _keep(Path(KEEP) / f"{time.time():.0f}", storm)


def _run(campaign: Campaign, storm: Storm) -> None:
    services, slurm = storm.services, storm.cluster
    services.start_dispatcher()
    services.start_edge(name=NAME)
    with services.client() as client:
        campaign.submit(client)
        wait_until(lambda: bool(slurm.queue()), "the first allocation", seconds=60)
        began = time.monotonic()
        storm.begin()

        def ended() -> bool:
            try:
                return len(campaign.ended(client)) == len(campaign.ids)
            except Unavailable:
                return False

        drive(storm, ended, seconds=SECONDS)
    print(f"all tasks ended {time.monotonic() - began:.0f} s after the first submission to Slurm")
    wait_until(lambda: not slurm.queue(), "an empty queue")
    wait_until(lambda: only_services_left(services), "the end of all allocations")
    wait_until(
        lambda: all((f / "timeline.json").exists() for f in (services.spool / "allocations").iterdir()),
        "all timelines",
    )


def _tell_figures(campaign: Campaign, storm: Storm) -> None:
    found = lives(storm.services.spool)
    print(*found, sep="\n")
    at_work, finished = weighed(found)
    with storm.services.client() as client:
        needed = needed_core_seconds(client, campaign.ids.values(), cores_a_node=CORES)
    given = CORES * given_node_seconds(storm.cluster, storm.urgent)
    never = allocations_that_never_ran(storm.cluster, storm.urgent)
    traced = sum(life.core_seconds * life.finished for life in found)
    print(
        f"cores at work {at_work:.1%}, for what was finished {finished:.1%} of the allocations' time"
        f" by {len(found)} traces; {never} batch jobs never ran\n"
        f"successful jobs and events took {needed:.0f} core-seconds, {traced:.0f} by the traces; Slurm gave {given:.0f}"
    )
    assert traced == pytest.approx(needed, rel=0.1), "the traces do not tell what was done"


def _keep(folder: Path, storm: Storm) -> None:
    shutil.copytree(storm.services.folder, folder, ignore=shutil.ignore_patterns("*.segment", "*.sqlite*"))
    logs = folder / "slurm"
    logs.mkdir()
    for file in (*storm.cluster.folder.glob("*.log"), storm.cluster.folder / "accounting"):
        shutil.copy(file, logs)
    (folder / "story.txt").write_text("\n".join(storm.story) + "\n")
    if traces := [life.trace for life in lives(storm.services.spool)]:
        draw_timelines(traces, folder / "timeline.png")
