"""When nothing is started on a node any more, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.brokerage.node_quarantine import (
    BARRED_S,
    FAULTS,
    KEPT,
    MAX_BARRED,
    MAX_KNOWN,
    MAX_WHY,
    TASKS,
    WITHIN_S,
    KnownNode,
    NodeFault,
    barred,
    is_node,
    lifted,
    noted,
)


def fault(node: str, at: float, task: int, why: str = "node-broken: uncorrectable ECC") -> NodeFault:
    return NodeFault(node=node, at=at, task_id=task, why=why)


def after(*faults: NodeFault, known: tuple[KnownNode, ...] = ()) -> tuple[KnownNode, ...]:
    """What is known when these were noted, each at its time."""
    for one in faults:
        known = noted(known, [one], now=one.at)
    return known


def test_a_node_is_barred_by_several_faults_of_several_tasks() -> None:
    """Not before, not by one task however often, and not by what was long ago; it ends by itself."""
    two = after(fault("n1", 1.0, 1), fault("n1", 2.0, 2))
    assert barred(two, now=2.0) == ()
    three = after(fault("n1", 3.0, 1), known=two)
    (one,) = barred(three, now=3.0)
    assert (one.node, one.until) == ("n1", 3.0 + BARRED_S)
    assert one.why == "The last 3 failures there, in 2 tasks, were its own: node-broken: uncorrectable ECC"
    assert barred(three, now=3.0 + BARRED_S) == ()
    assert barred(after(*(fault("n1", float(n), 1) for n in range(20))), now=20.0) == ()
    assert barred(after(fault("n1", 2.0 + WITHIN_S, 3), known=two), now=2.0 + WITHIN_S) == ()


def test_other_nodes_are_left_alone() -> None:
    """What happens on one says nothing of another."""
    known = after(*(fault(f"n{n % 3}", float(n), n) for n in range(8)))
    assert [one.node for one in barred(known, now=8.0)] == ["n0", "n1"]


def test_what_counted_before_a_quarantine_does_not_bring_it_back() -> None:
    """When it is over, or lifted, the node has a fresh start."""
    known = after(
        *(fault("n1", float(n), n) for n in range(3)), *(fault("n2", float(n), n) for n in range(3))
    )
    assert [one.node for one in barred(lifted(known, "n1", now=3.0), now=3.0)] == ["n2"]
    assert lifted(known, None, now=3.0) == ()
    later = 3.0 + max(BARRED_S, WITHIN_S)
    assert barred(noted(known, [fault("n1", later, 9)], now=later), now=later) == ()


def test_only_names_of_hosts_are_nodes() -> None:
    """They go into files, command lines and tables."""
    assert all(is_node(name) for name in ("nid001234", "c1-0.example.org", "n_7", "7"))
    assert not any(
        is_node(name) for name in ("", "-x", "a b", "a,b", "n[1-9]", "a\nb", "ä", "x" * 300, "../x")
    )


@given(st.lists(st.tuples(st.integers(0, 80), st.floats(0.0, 600.0), st.integers(1, 4)), max_size=300))
def test_what_is_kept_is_bounded_whatever_is_said(said: list[tuple[int, float, int]]) -> None:
    """Nodes, faults of each, nodes that are barred, and how long; nothing is barred without cause."""
    known: tuple[KnownNode, ...] = ()
    now = 0.0
    for node, wait, task in said:
        now += wait
        known = noted(known, [fault(f"n{node}", now, task, "x" * 1000)], now=now)
        assert len(known) <= MAX_KNOWN
        assert all(0 < len(entry.faults) <= KEPT for entry in known)
        assert len({entry.node for entry in known}) == len(known)
        told = barred(known, now=now)
        assert len(told) <= MAX_BARRED
        assert all(now < one.until <= now + BARRED_S and len(one.why) <= MAX_WHY for one in told)
        for entry in known:
            if entry.until > now:
                assert len(entry.faults) >= FAULTS
                assert len({f.task_id for f in entry.faults}) >= TASKS


def test_so_many_nodes_are_barred_and_no_more() -> None:
    """A site that is broken altogether is the business of the site's own quarantine."""
    known: tuple[KnownNode, ...] = ()
    for node in range(MAX_BARRED + 5):
        known = after(*(fault(f"n{node}", float(node), task) for task in range(3)), known=known)
    assert len(barred(known, now=30.0)) == MAX_BARRED
