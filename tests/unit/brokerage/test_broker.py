"""Which sites may have a task, and which should."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.brokerage.broker import ASKED_S, PATIENCE_S, SiteState, judge, outlook
from hpcpanda.brokerage.matching import Demand, SiteTraits, refusals
from hpcpanda.brokerage.network import Data, Link, moving_seconds
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.room import Room

NOW = 1e9
ROOM = Room(cores=8, memory_mb=16_000, gpus=2, nodes=4, seconds=600.0)
TRAITS = SiteTraits(name="west", architecture="x86_64", tags=frozenset({"root:6", "data:open"}), room=ROOM)
GB = 10**9


def site(name: str = "west", **fields: Any) -> SiteState:
    traits = replace(TRAITS, name=name, **{k: fields.pop(k) for k in ("architecture", "tags") if k in fields})
    return SiteState(traits=traits, **fields)


@pytest.mark.parametrize(
    ("demand", "code"),
    [
        ({}, None),
        ({"sites": ("west", "east")}, None),
        ({"sites": ("east",)}, "site-not-allowed"),
        ({"not_sites": ("west",)}, "site-denied"),
        ({"architectures": ("aarch64", "x86_64")}, None),
        ({"architectures": ("aarch64",)}, "architecture"),
        ({"tags": ("root:6",)}, None),
        ({"tags": ("root:6", "licence:x")}, "tags"),
        ({"data_policy": "open"}, None),
        ({"data_policy": "medical"}, "tags"),
    ],
)
def test_hard_demands(demand: dict[str, Any], code: str | None) -> None:
    """Each is kept, or its refusal has a code and names what is missing."""
    found = list(refusals(Demand(requirements=Requirements(**demand)), TRAITS))
    assert [why.code for why in found] == ([] if code is None else [code])


@pytest.mark.parametrize(
    ("job", "container", "code"),
    [
        ({"cores": 8, "gpus": 2, "walltime_s": 600.0}, False, None),
        ({"gpus": 3, "walltime_s": 60.0}, False, "room"),
        ({"memory_mb": 20_000, "walltime_s": 60.0}, False, "room"),
        ({"walltime_s": 601.0}, False, "room"),
        ({"walltime_s": 60.0}, True, "room"),
        (None, True, "containers"),
        (None, False, None),
    ],
)
def test_jobs_need_room(job: dict[str, Any] | None, container: bool, code: str | None) -> None:
    """GPUs, memory, walltime, containers."""
    demand = Demand(job=None if job is None else JobRequest(**job), container=container)
    assert [why.code for why in refusals(demand, TRAITS)] == ([] if code is None else [code])


def test_a_site_that_does_not_say_its_architecture_gets_nothing_that_asks_for_one() -> None:
    """And the refusal says where to say it."""
    (why,) = refusals(
        Demand(requirements=Requirements(architectures=("x86_64",))), replace(TRAITS, architecture=None)
    )
    assert "not said in its site file" in why.sentence


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": ("a b",)},
        {"tags": ("a:",)},
        {"tags": ("a", "a")},
        {"tags": ("x" * 200,)},
        {"sites": ("",)},
        {"sites": tuple(f"s{n}" for n in range(101))},
        {"sites": ("a",), "not_sites": ("a",)},
        {"data_policy": "../x"},
        {"architectures": ("x'; DROP TABLE",)},
    ],
    ids=str,
)
def test_requirements_are_names(wrong: dict[str, Any]) -> None:
    """What is none, doubled, too long or too many is refused."""
    with pytest.raises(InvalidValue, match="requirements"):
        Requirements(**wrong)


def test_moving_costs_what_the_links_say() -> None:
    """100 GB, of which 20 are there: 50 from the fast source, 30 from the slow one."""
    links = {("fast", "west"): Link(bytes_per_s=1e9), ("slow", "west"): Link(bytes_per_s=1e8)}
    data = Data(size=100 * GB, at={"west": 20 * GB, "fast": 50 * GB, "slow": 100 * GB})
    assert moving_seconds(data, "west", links) == pytest.approx(50 + 300)
    assert moving_seconds(data, "slow", links) == 0.0
    assert moving_seconds(Data(), "west", links) == 0.0
    assert math.isinf(moving_seconds(Data(size=GB, at={"fast": 1}), "west", links))


def test_a_link_is_learnt() -> None:
    """A guess gives way to the first large copy, a small slow one moves little, and a lasting change is followed."""
    link = Link(bytes_per_s=50e6).learn(100 * GB, 100.0)
    assert link.bytes_per_s == pytest.approx(1e9)
    assert link.learn(1_000_000, 1.0).bytes_per_s > 0.98e9
    for _ in range(10):
        link = link.learn(100 * GB, 1000.0)
    assert link.bytes_per_s == pytest.approx(1e8, rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 10**12), st.floats(1e-6, 1e7)), min_size=1, max_size=20))
def test_a_learnt_link_stays_between_what_was_seen(copies: list[tuple[int, float]]) -> None:
    """Never faster than the fastest copy, nor slower than the slowest."""
    link = Link(bytes_per_s=50e6)
    for size, seconds in copies:
        link = link.learn(size, seconds)
    rates = [max(1.0, size / seconds) for size, seconds in copies]
    assert min(rates) * (1 - 1e-6) <= link.bytes_per_s <= max(rates) * (1 + 1e-6)


def verdict(own: SiteState, *others: SiteState, waited_s: float = 0.0, **more: Any) -> str:
    found = judge(
        more.pop("demand", Demand()),
        own,
        others,
        waited_s=waited_s,
        now=NOW,
        links=more.pop("links", {}),
        **more,
    )
    assert found.may == (found.why.code == "may-run")
    return found.why.code


def test_a_clearly_worse_site_leaves_work_to_a_better_one_that_asks() -> None:
    """As long as it asks, wants more, may have it, and the work has not waited long."""
    bad = site("bad", queue_wait_s=7200.0)
    good = site("good", asked=NOW - 5, hungry=True)
    assert verdict(bad, good) == "better-site"
    assert verdict(good, replace(bad, asked=NOW, hungry=True)) == "may-run"
    assert verdict(bad) == "may-run"
    assert verdict(bad, replace(good, hungry=False)) == "may-run"
    assert verdict(bad, replace(good, asked=NOW - ASKED_S - 1)) == "may-run"
    assert verdict(bad, good, waited_s=PATIENCE_S) == "may-run"
    denied = Demand(requirements=Requirements(not_sites=("good",)))
    assert verdict(bad, good, demand=denied) == "may-run"


def test_sites_that_are_about_as_good_do_not_wait_for_each_other() -> None:
    """A minute or a half more is not clearly worse."""
    good = site("good", asked=NOW, hungry=True)
    assert verdict(site("other", queue_wait_s=290.0), good) == "may-run"
    assert verdict(site("other", queue_wait_s=310.0), good) == "better-site"


@pytest.mark.parametrize(
    "worse",
    [
        {"failure_rate": 0.5},
        {"granted": NOW - 7200.0, "committed": NOW - 8000.0},
        {"queue_wait_s": 3600.0},
    ],
    ids=str,
)
def test_what_makes_a_site_worse(worse: dict[str, float]) -> None:
    """Failures, silence after it was given something, a long queue."""
    assert verdict(site("bad", **worse), site("good", asked=NOW, hungry=True)) == "better-site"


def test_work_goes_to_its_data() -> None:
    """Unless the link is fast enough."""
    data = Data(size=1000 * GB, at={"good": 1000 * GB})
    good = site("good", asked=NOW, hungry=True)
    assert verdict(site("far"), good, data=data) == "better-site"
    assert verdict(site("far"), good, data=data, links={("good", "far"): Link(bytes_per_s=1e10)}) == "may-run"
    assert verdict(site("far"), data=Data(size=1, at={})) == "may-run"


@given(
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.floats(0, 1e6),
    st.sampled_from(("queue_wait_s", "failure_rate", "granted")),
)
def test_the_figure_only_grows_with_what_is_bad(
    wait: float, failing: float, silent: float, what: str
) -> None:
    """Longer queues, more failures and longer silence never make a site look better."""
    values = {"queue_wait_s": wait, "failure_rate": failing, "granted": NOW - silent}
    worse = dict(values)
    worse[what] = {
        "queue_wait_s": wait + 1,
        "failure_rate": min(1.0, failing + 0.1),
        "granted": NOW - silent - 1,
    }[what]
    figures = [outlook(site(**v), Data(), {}, now=NOW).total_s for v in (values, worse)]
    # A longer queue excuses as much silence.
    assert figures[1] >= figures[0] * (1 - 1e-12)
