"""What a simulation found is told to people, to programs and in pictures, and says what the figures say."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.pictures import draw as pictures
from hpcpanda.simulate.pictures import time as pictures_time
from hpcpanda.simulate.pictures.draw import draw_pictures
from hpcpanda.simulate.pictures.holes import draw_holes
from hpcpanda.simulate.pictures.policies import draw_policies
from hpcpanda.simulate.pictures.time import draw_day, draw_utilisation, place_spans
from hpcpanda.simulate.report import document, figures_of, headline
from hpcpanda.simulate.results import HarvestFigures, HarvestSeries, HostFigures, SimulationResult
from hpcpanda.simulate.trace import Flaw

HOUR = 3600.0

HOST = HostFigures(
    jobs=12, nodes=10, days=2.0, utilisation_before=0.75, utilisation_after=0.95, delayed_jobs=3, delay_mean_s=20.0, delay_max_s=9000.0
)  # fmt: skip
FIGURES = HarvestFigures(
    policy="ours", harvestable=100.0, shortest_hole_s=300.0, held=96.0, displaced=1.0, useful=90.0, lost=2.0, overhead=5.0,
    startup=3.0, drain=1.5, unfilled=0.5, requests=1234, started=1200, preempted=7, killed_at_wall=8, failed=9,
    events_finished=1_000_000, jobs_finished=55, queue_wait_median_s=59.0, queue_wait_p90_s=7300.0, turnaround_median_s=0.0,
    host=HOST,
)  # fmt: skip


def series(days: int = 2) -> HarvestSeries:
    """Ten nodes: eight are busy by day and four by night, and we hold half of the rest on the last day."""
    times = np.arange(0, days * 24 + 1, 12) * HOUR
    host = np.where(np.arange(len(times)) % 2, 4.0, 8.0)
    ours = np.where(times >= (days - 1) * 24 * HOUR, (10 - host) / 2, 0.0)
    end = days * 24 * HOUR
    gantt = ((end - 24 * HOUR, end - 12 * HOUR, 1, "ended"), (end - 12 * HOUR, end, 3, "killed"))
    return HarvestSeries(times=times, host=host, ours=ours, hole_lengths=np.array([1.0]), gantt=gantt)


RESULT = SimulationResult(
    source="made (swf)",
    site="here",
    seed=5,
    wall_s=1.5,
    flaws=(Flaw(kind="overrun", count=2, first_line=7, remedy="Raised."),),
    policies=(FIGURES, replace(FIGURES, policy="another policy with a long name", held=50.0, useful=20.0)),
    series={"ours": series(), "another policy with a long name": series()},
)


def test_figures_for_people() -> None:
    """Shares are of the harvestable; what was taken from the host is not useful; times are short."""
    told = figures_of(FIGURES)
    assert told["held, of the harvestable"] == "96.00%"
    assert told["useful, of the harvestable"] == "89.00%"
    assert told["lost"] == "2.00%"
    assert told["overhead: start-up"] == "3.00%"
    assert told["events finished"] == "1,000,000"
    assert told["wait in the queue, median"] == "59 s"
    assert told["wait in the queue, p90"] == "2.0 h"
    assert told["turn-around, median"] == "-"
    assert told["host: delay, most"] == "2.5 h"
    assert told["host: jobs delayed"] == "3"


def test_nothing_harvestable_divides_by_nothing() -> None:
    """A full machine has no shares."""
    told = figures_of(replace(FIGURES, harvestable=0.0))
    assert told["lost"] == "-"
    assert told["held, of the harvestable"] == "0.00%"


def test_the_headline_tells_of_the_host() -> None:
    """Jobs, nodes, days, and what there is to harvest."""
    assert headline(RESULT) == (
        "made (swf): 12 jobs on 10 nodes in 2.0 days, 75.0% busy; 100 node-hours in holes of 300 s or more"
    )


def test_the_document_has_every_figure_and_no_series() -> None:
    """It survives JSON; the shares are in it."""
    told = json.loads(json.dumps(document(RESULT)))
    assert told["seed"] == 5
    assert told["flaws"] == [{"kind": "overrun", "count": 2, "first_line": 7, "remedy": "Raised."}]
    first = told["policies"][0]
    assert (first["harvested_share"], first["useful_share"]) == (0.96, 0.89)
    assert first["host"]["delayed_jobs"] == 3
    assert "series" not in told


# ---- pictures ----


def test_all_pictures_are_drawn(tmp_path: Path) -> None:
    """Four files that are pictures, an old one of the same name is replaced."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "day.png").write_text("an old one")
    assert len(draw_pictures(RESULT, folder)) == 4
    assert {p.name for p in folder.iterdir()} == {"utilisation.png", "day.png", "holes.png", "policies.png"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in folder.iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """As an error of the product."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidValue, match="cannot be written"):
        draw_pictures(RESULT, tmp_path / "file" / "folder")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is drawn."""
    monkeypatch.setattr(
        pictures, "find_spec", lambda name: None if name == "matplotlib" else importlib.util.find_spec(name)
    )
    with pytest.raises(InvalidValue, match=r"pip install 'hpcpanda\[examples\]'"):
        draw_pictures(RESULT, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_utilisation_has_a_panel_a_policy_below_the_host() -> None:
    """Each under what it shows, with units on the axes."""
    figure = draw_utilisation(RESULT)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "host alone: 75.0% busy"
    assert titles[1].startswith("ours: held 96.0% of the harvestable")
    assert titles[1].endswith("3 host jobs delayed")
    assert len(titles) == 3
    assert figure.axes[-1].get_xlabel() == "days since the simulation began"


def test_utilisation_draws_means() -> None:
    """The area under the steps of the picture is that of the series."""
    made = series(60)
    edges = np.linspace(0, made.times[-1], 501)
    means = pictures_time._means(made.times, made.host, edges)
    assert means @ np.diff(edges) == pytest.approx(made.host[:-1] @ np.diff(made.times))
    assert means.min() >= 4
    assert means.max() <= 8


def test_the_day_that_is_drawn_is_the_fullest() -> None:
    """The last one here; its allocations are boxes, coloured by how they ended."""
    figure = draw_day(RESULT)
    assert "from day 1.0 on" in figure.axes[0].get_title(loc="left")
    assert figure.axes[1].get_title(loc="left").startswith("2 allocations")
    boxes = [c for c in figure.axes[1].collections if len(c.get_paths())]
    assert sum(len(c.get_paths()) for c in boxes) == 2
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert words == ["ended by us", "killed: at the wall, or with a node"]


def test_nothing_held_can_be_drawn() -> None:
    """A policy that got nothing, on a machine without holes."""
    busy = replace(series(), host=np.full(5, 10.0), ours=np.zeros(5), gantt=())
    result = replace(RESULT, policies=(replace(FIGURES, harvestable=0.0),), series={"ours": busy})
    for draw in (draw_utilisation, draw_day, draw_holes, draw_policies):
        draw(result).savefig("/dev/null", format="png")


def test_holes_add_up_to_what_is_idle() -> None:
    """The cells of the picture hold all idle node-hours, and the title tells them."""
    figure = draw_holes(RESULT)
    mesh = figure.axes[0].collections[0]
    idle = 2 * (2 * 12 + 6 * 12)
    assert float(mesh.get_array().sum()) == pytest.approx(idle)
    assert f"{idle} node-hours" in figure.axes[0].get_title(loc="left")


def test_bars_of_a_policy_add_up() -> None:
    """Useful, overhead and lost in percent of the harvestable, on top of one another."""
    figure = draw_policies(RESULT)
    widths = [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers]
    assert widths == [[90, 20], [5, 5], [2, 2]]
    texts = {t.get_text() for t in figure.axes[1].texts}
    assert {"89.00%", "19.00%", "another\npolicy with a\nlong name", "held, of the harvestable"} <= texts


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(1, 30), st.just("ended")), max_size=30
    )
)
def test_boxes_of_a_day_do_not_overlap(drawn: list[tuple[int, int, int, str]]) -> None:
    """Each has as many rows as nodes, free of others that run at the time, and no more rows are used than held at once."""
    spans = sorted((float(at), float(at + length), nodes, how) for at, length, nodes, how in drawn)
    placed = place_spans(spans)
    for (_, _, nodes, _), pieces in zip(spans, placed, strict=True):
        assert sum(high - low for low, high in pieces) == nodes
    for moment in {s[0] for s in spans}:
        rows = sorted(
            piece
            for (start, end, _, _), pieces in zip(spans, placed, strict=True)
            for piece in pieces
            if start <= moment < end
        )
        assert all(a[1] <= b[0] for a, b in pairwise(rows))
