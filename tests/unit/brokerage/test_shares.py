"""The operator's plan: what it refuses, and whom each share serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpcpanda.brokerage.fairness import Usage
from hpcpanda.brokerage.order import Waiting, rank
from hpcpanda.brokerage.shares import Boost, Quota, Share, SharePlan, ShareTree
from hpcpanda.dispatcher.shares_file import load_shares
from hpcpanda.domain.errors import InvalidValue

A = Share(name="a", target=1)
NOW = 1e9
GOOD = """
default_share = "rest"
half_life_h = 12

[[shares]]
name = "atlas"
target = 80

[[shares]]
name = "simulation"
parent = "atlas"
target = 3
groups = ["atlas-sim"]

[[shares]]
name = "analysis"
parent = "atlas"
target = 1
groups = ["atlas-ana"]
users = ["ada"]

[[shares]]
name = "rest"
target = 20

[quota]
core_hours = 1000
users = { ada = 5000 }

[[boosts]]
group = "atlas-sim"
site = "centre"
points = 20000

[weights]
age = 20
"""


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ({"shares": ()}, "name at least one"),
        ({"shares": (A, A)}, "two have the same name"),
        ({"shares": (A,)}, "'default' is no share without parts"),
        ({"shares": (A,), "default_share": "b"}, "'b' is no share without parts"),
        ({"shares": (Share(name="a", target=1, parent="b"),)}, "there is no share 'b'"),
        ({"shares": (Share(name="a", target=1, parent="a"),)}, "a part of itself"),
        (
            {
                "shares": tuple(
                    Share(name=f"s{n}", target=1, parent=f"s{n - 1}" if n else None) for n in range(9)
                )
            },
            "deeper than 8",
        ),
        (
            {"shares": (Share(name="a", target=1, groups=("g",)), Share(name="b", target=1, groups=("g",)))},
            "'g' is in share 'a' too",
        ),
        (
            {"shares": (Share(name="a", target=1, users=("u",)), Share(name="b", parent="a", target=1))},
            "it has parts",
        ),
        ({"shares": (A,), "default_share": "a", "half_life_h": 0.0}, "half_life_h"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plan_that_is_none_is_refused(plan: Mapping[str, Any], problem: str) -> None:
    """With what is wrong; rings and towers of shares too."""
    with pytest.raises(InvalidValue, match=problem):
        SharePlan(**plan)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Share(name="a b", target=1), "is not a name"),
        (lambda: Share(name="a", target=-1), "outside"),
        (lambda: Share(name="a", target=float("nan")), "outside"),
        (lambda: Boost(points=5), "points for all change no order"),
        (lambda: Boost(points=1e9, user="ada"), "outside"),
        (lambda: Quota(core_hours=0), "outside"),
        (lambda: Quota(users={"ada": float("inf")}), "outside"),
    ],
)
def test_values_are_bounded(make: Any, problem: str) -> None:
    """Names are names and numbers are finite."""
    with pytest.raises(InvalidValue, match=problem):
        make()


def test_a_file_says_it_all(tmp_path: Path) -> None:
    """Groups before users, users before the rest; parts, quota and boosts as written."""
    path = tmp_path / "shares.toml"
    path.write_text(GOOD)
    plan = load_shares(path)
    tree = ShareTree(plan)
    assert tree.leaf_of(owner="bob", group="atlas-sim") == "simulation"
    assert tree.leaf_of(owner="ada", group="atlas-sim") == "simulation"
    assert tree.leaf_of(owner="ada", group=None) == "analysis"
    assert tree.leaf_of(owner="ada", group="unknown") == "analysis"
    assert tree.leaf_of(owner="bob", group="unknown") == "rest"
    assert [share.name for share in tree.path("analysis")] == ["analysis", "atlas"]
    assert (plan.quota.of("ada"), plan.quota.of("bob")) == (5000, 1000)
    assert plan.weights.age == 20


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("shares = 5", "shares"),
        ("[[shares]]\nname='default'\ntarget=1\ncolour='red'", "shares.0.colour"),
        ("[[shares]]\nname='default'\ntarget='x'", "shares.0.target"),
        ("[[shares]]\nname='default'\n", "shares.0.target"),
        ("= 5", "is not TOML"),
        ("\xff", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("#" * (5 * 2**20), "is larger than"),
        ("[weights]\nshare = nan", "share"),
    ],
    ids=lambda value: value[:20],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path: Path, text: str, problem: str) -> None:
    """And the field, where there is one."""
    path = tmp_path / "shares.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidValue, match=problem) as caught:
        load_shares(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InvalidValue, match="cannot be read"):
        load_shares(tmp_path / "missing")


def task(number: int, **fields: Any) -> Waiting:
    return Waiting(**{"task_id": number, "owner": f"u{number}", "served": NOW} | fields)


def test_each_component_says_its_points() -> None:
    """Values of one task worked out by hand."""
    plan = SharePlan(
        quota=Quota(core_hours=10),
        boosts=(Boost(user="u1", points=70), Boost(user="u1", site="west", points=7)),
    )
    (one,) = rank(
        [
            task(
                1,
                priority=5,
                served=NOW - 2.5 * 3600,
                deadline=NOW + 13 * 3600,
                needs_s=3600,
                done=80,
                failed=10,
            )
        ],
        Usage(users={"u1": 15 * 3600}),
        ShareTree(plan),
        now=NOW,
    )
    points = one.points
    assert (points.share, points.priority, points.age, points.deadline) == (0.0, 5.0, 20.0, 750.0)
    assert (points.boost, points.failures, points.quota) == (70.0, -100.0, -1500.0)
    assert points.total == -755.0
    assert "priority +5, age +20, deadline +750, boost +70, failures -100, quota -1500" in one.why().sentence


def test_equal_tasks_are_served_in_order_of_submission() -> None:
    """A few minutes of waiting change nothing: tasks are finished one after the other."""
    found = rank(
        [task(2, served=NOW - 3000), task(1), task(3, served=NOW - 3599)],
        Usage(),
        ShareTree(SharePlan()),
        now=NOW,
    )
    assert [one.task.task_id for one in found] == [1, 2, 3]


def test_a_user_beyond_the_quota_comes_after_the_others() -> None:
    """Just below it, use does not matter."""
    tree = ShareTree(SharePlan(quota=Quota(core_hours=10)))
    pair = [task(1), task(2, priority=-900)]
    for hours, first in ((9.9, 1), (10.0, 2)):
        usage = Usage(users={"u1": hours * 3600})
        assert rank(pair, usage, tree, now=NOW)[0].task.task_id == first


def test_a_boost_at_a_site_holds_there_only() -> None:
    """The group's own machine serves it first."""
    tree = ShareTree(SharePlan(boosts=(Boost(group="own", site="west", points=20_000),)))
    pair = [task(1, priority=1000), task(2, group="own")]
    assert [rank(pair, Usage(), tree, now=NOW, site=s)[0].task.task_id for s in ("west", "east", None)] == [
        2,
        1,
        1,
    ]
