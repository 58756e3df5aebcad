"""The Perlmutter preset: today's losses are reproduced, ours keeps nearly everything and is fair to slow events."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.perlmutter.jobs import JobModel
from hpcpanda.simulate.perlmutter.report import (
    CHECK_COLUMNS,
    COLUMNS,
    READING_COLUMNS,
    check_rows,
    draw_perlmutter,
    reading_rows,
    rows,
)
from hpcpanda.simulate.perlmutter.results import Bias, PerlmutterResult, PolicyResult
from hpcpanda.simulate.perlmutter.run import OURS, run_perlmutter
from hpcpanda.simulate.perlmutter.scenario import Scenario
from hpcpanda.simulate.perlmutter.stream import event_task, perlmutter_site, run_stream


@pytest.fixture(scope="module")
def result() -> PerlmutterResult:
    told: list[float] = []
    found = run_perlmutter(
        seed=5, scale=0.0005, progress=told.append, scenario=Scenario(range_s=120.0, pilot_scale=0.1)
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0, abs=1e-5)
    return found


def policy(result: PerlmutterResult, name: str) -> PolicyResult:
    (found,) = [p for p in result.policies if p.policy == name]
    return found


def test_as_today_has_the_published_losses(result: PerlmutterResult) -> None:
    """One number is fitted; core-hours a killed job, the lost share and the use of the allocations then follow."""
    for check in result.checks:
        assert check.simulated == pytest.approx(check.published, abs=0.06, rel=0.03), check.what
    lost = next(c for c in result.checks if c.what.startswith("core-hours of killed"))
    assert not lost.fitted
    assert lost.simulated == pytest.approx(0.2163, abs=0.01)


def test_only_one_reading_fits(result: PerlmutterResult) -> None:
    """Second jobs that die at the wall cannot explain what a killed job cost."""
    assert [r.fits for r in result.readings] == [True, False, False, False, False]


def test_as_today_leaves_half_of_a_node_idle(result: PerlmutterResult) -> None:
    """Nearly every allocation waits for stragglers with half of its cores, as is reported."""
    assert policy(result, "as today").half_idle > 0.9


def test_ours_throws_nearly_nothing_away(result: PerlmutterResult) -> None:
    """Even with a lost node and an endless event in two allocations' work, less than a tenth of what is today."""
    ours, today = policy(result, OURS), policy(result, "as today")
    assert ours.core_hours.lost_of_work < 0.1 * today.core_hours.lost_of_work
    assert ours.core_hours.useful_of_held > 0.95
    assert ours.useful_a_day > 2 * today.useful_a_day


def test_today_is_biased_and_ours_is_not(result: PerlmutterResult) -> None:
    """Events of jobs that the wall kills are the costly ones; ours finishes all but the one that cannot be."""
    today, ours = policy(result, "as today").bias, policy(result, OURS).bias
    assert today.finished.mean_s < 0.9 * today.submitted.mean_s
    assert today.finished.p99_s < 0.8 * today.submitted.p99_s
    assert today.distance > 10 * today.threshold
    assert ours.distance < 1e-5
    assert ours.finished.p99_s == pytest.approx(ours.submitted.p99_s, rel=1e-3)
    assert result.streaming.midway.distance < result.streaming.midway.threshold


def test_the_endless_event_is_named(result: PerlmutterResult) -> None:
    """What ours does not finish is listed event by event, with the reason."""
    (failure,) = policy(result, OURS).failed
    assert failure.error == "the range took longer than 1200.0 s"
    assert policy(result, OURS).events_finished == result.streaming.tasks_events - 1


def test_truthful_limits_kill_nothing_and_never_run_the_slow(result: PerlmutterResult) -> None:
    """The wall kills none, but jobs longer than an allocation have no place: as biased as today."""
    truthful = policy(result, "truthful limits")
    assert truthful.core_hours.lost_wall == 0.0
    assert truthful.jobs_never > 0
    assert truthful.bias.distance > 10 * truthful.bias.threshold


def test_tables_have_their_columns(result: PerlmutterResult) -> None:
    """Each row has as many cells as there are headings."""
    for columns, found in (
        (COLUMNS, rows(result)),
        (CHECK_COLUMNS, check_rows(result)),
        (READING_COLUMNS, reading_rows(result)),
    ):
        assert found
        assert {len(row) for row in found} == {len(columns)}


def test_the_result_goes_to_json(result: PerlmutterResult) -> None:
    """As the command line prints it."""
    document = json.loads(TypeAdapter(PerlmutterResult).dump_json(result))
    assert document["policies"][3]["policy"] == OURS
    assert document["policies"][3]["failed"][0]["attempts"] == 3


def test_pictures_are_drawn(result: PerlmutterResult, tmp_path: Path) -> None:
    """Two files that are PNGs."""
    pytest.importorskip("matplotlib")
    for picture in draw_perlmutter(result, tmp_path / "p"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_stream() -> None:
    """All that a run finds, and another seed finds something else."""
    site = perlmutter_site(4)
    site = replace(site, allocation=replace(site.allocation, walltime_s=1200.0))

    def run(seed: int) -> object:
        random = np.random.default_rng(seed)
        model = JobModel(median_s=600.0, events=100)
        costs = model.costs(model.seconds(12, random), random).ravel()
        return run_stream(
            costs,
            site=site,
            startup_s=10.0,
            spec=event_task(len(costs), range_s=20.0, timeout_s=600.0),
            lost_at=lambda _: 900.0,
            progress=lambda _: None,
        )

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    """Equal samples have none, separate ones 1, and a half that is cut off gives a half."""
    costs = np.arange(1, 101, dtype=np.float32)
    assert Bias.between(costs, costs).distance == 0.0
    assert Bias.between(costs, costs + 1000).distance == 1.0
    assert Bias.between(costs, costs[:50]).distance == pytest.approx(0.5)


def test_a_scale_beyond_the_published_is_refused() -> None:
    """The message names the field."""
    with pytest.raises(InvalidValue, match="scale"):
        run_perlmutter(scale=2.0)
