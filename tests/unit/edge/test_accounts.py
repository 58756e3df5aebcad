"""The edge's accounts: what of a journal counts, for whom, and what the dispatcher's answers do to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.merge_work import accepted_events, failed_events
from hpcpanda_edge.records import JournalRecord
from hpcpanda_edge.reporting import apply_reply, make_report
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hypothesis import given, settings
from hypothesis import strategies as st
from support.edge import small_site
from support.edge_books import JOURNAL, accept, entries, fresh

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import CommitResult, SyncReply
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.journal import ENTRY, FailedInEpoch

TWIN = JournalRecord(name="a1-p1-i1-r0.journal", task_id=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = fresh(tmp_path / "edge.sqlite")
    yield store
    store.close()


def test_finished_ranges_are_committed_and_chosen_in_one_step(store: Store):
    """Ledger, choice, offset and outbox move together."""
    assert accept(store, entries((0, 5), (10, 12))) == 7
    assert store.journals[JOURNAL.key].chosen == {7: IntervalSet((0, 5, 10, 12))}
    assert store.journals[JOURNAL.key].offset == 1
    assert store.leases[1, 7].ledger.done == IntervalSet((0, 5, 10, 12))
    (row,) = store.commits.values()
    assert (row.commit.done, row.commit.core_seconds) == (IntervalSet((0, 5, 10, 12)), 7.0)


def test_a_copy_by_an_earlier_incarnation_is_ignored(store: Store):
    """What one journal was credited for no other is, in either order of reading."""
    accept(store, entries((0, 5)), journal=TWIN)
    assert accept(store, entries((0, 5), (5, 6)), journal=JOURNAL) == 1
    assert store.journals[JOURNAL.key].chosen == {7: IntervalSet((5, 6))}


def test_a_range_that_is_only_partly_held_is_ignored_as_a_whole(store: Store):
    """A range's bytes cannot be cut, so it counts whole or not at all."""
    accept(store, entries((0, 5)))
    assert accept(store, entries((3, 8))) == 0


def test_overlapping_ranges_of_one_stretch_count_once_in_order(store: Store):
    """The first of them is kept, whatever lies around."""
    assert accept(store, entries((50, 60), (0, 10), (5, 15), (10, 20), (55, 56))) == 30
    assert store.journals[JOURNAL.key].chosen[7] == IntervalSet((0, 20, 50, 60))


def test_journals_of_unknown_epochs_and_other_packs_are_ignored(store: Store):
    """Neither a revoked epoch nor a pack that does not hold the events is credited."""
    assert accept(store, entries((0, 5), epoch=3)) == 0
    assert accept(store, entries((0, 5)), holder="a2-p1") == 0


def test_failed_events_are_committed_as_failed(store: Store):
    """Also those that come in the same stretch as finished ranges; a second report changes nothing."""
    failed = FailedInEpoch(
        epoch=7, events=(FailedEvent(event=5, error="bad"), FailedEvent(event=2, error="?"))
    )
    assert accept(store, entries((0, 5)), failed) == 6
    assert accept(store, entries(), failed) == 0
    assert list(store.leases[1, 7].ledger.failed) == [5]


def test_what_a_dead_pack_did_not_finish_is_ready_again_for_another(store: Store):
    """And late words of the dead one are worth nothing."""
    accept(store, entries((0, 40)))
    with store.transaction():
        assert accounts.release(store, 1, "a1-p1") == 60
        accounts.hand_out(store, 1, "a2-p1", 1000)
    assert accept(store, entries((40, 50))) == 0
    assert store.leases[1, 7].outstanding("a2-p1") == IntervalSet.span(40, 100)


def test_only_what_the_dispatcher_recorded_is_merged(store: Store):
    """Refused events are taken out of the choice for good."""
    accept(
        store, entries((0, 5), (5, 9)), FailedInEpoch(epoch=7, events=(FailedEvent(event=9, error="bad"),))
    )
    assert accepted_events(store, 1) == ()
    with store.transaction():
        accounts.acknowledge(store, (1, 7), IntervalSet((0, 5, 9, 10)), IntervalSet.span(5, 9))
    assert accepted_events(store, 1) == ((JOURNAL.name, 7, IntervalSet.span(0, 5)),)
    assert store.journals[JOURNAL.key].chosen[7] == IntervalSet.span(0, 5)
    assert failed_events(store, 1) == IntervalSet.span(9, 10)


def test_a_lost_lease_is_worth_nothing_but_what_was_recorded(store: Store):
    """Its packs are named so that they can be told; later journal entries under it do not count."""
    accept(store, entries((0, 5)))
    with store.transaction():
        assert accounts.lose(store, store.leases[1, 7]) == {"a1-p1"}
    assert accept(store, entries((5, 9))) == 0
    assert store.leases[1, 7].lost


def test_events_given_back_are_neither_ready_nor_forgotten_until_answered(tmp_path: Path):
    """A return is said again until the dispatcher has answered it."""
    store = fresh(tmp_path / "edge.sqlite", held=30)
    with store.transaction():
        assert accounts.give_back(store, 1) == 70
        assert not accounts.ready_events(store, 1)
    report = make_report(store, {}, instance="i")
    assert report.request.returns[0].events == IntervalSet.span(30, 100)
    steps = Steps(store, Spool(tmp_path), small_site(tmp_path))
    with store.transaction():
        apply_reply(store, steps, report, SyncReply())
    assert not make_report(store, {}, instance="i").request.returns
    store.leases[1, 7].ledger.validate()
    store.close()


def test_commits_of_a_lease_are_joined_and_dropped_only_when_answered(store: Store, tmp_path: Path):
    """What was entered after the message was made stays for the next."""
    accept(store, entries((0, 5)))
    accept(store, entries((5, 9)))
    report = make_report(store, {}, instance="i")
    assert [c.done for c in report.request.commits] == [IntervalSet.span(0, 9)]
    accept(store, entries((20, 21)))
    result = CommitResult(task_id=1, epoch=7, accepted=IntervalSet.span(0, 9), refused=EMPTY)
    with store.transaction():
        apply_reply(
            store, Steps(store, Spool(tmp_path), small_site(tmp_path)), report, SyncReply(commits=(result,))
        )
    assert [c.commit.done for c in store.commits.values()] == [IntervalSet.span(20, 21)]
    assert store.leases[1, 7].acknowledged == IntervalSet.span(0, 9)


def test_a_million_single_events_in_any_order_are_entered_quickly(tmp_path: Path):
    """The cost is that of sorting, not of looking at events one by one."""
    store = fresh(tmp_path / "edge.sqlite", events=1_000_000, held=1_000_000)
    rows = np.zeros(1_000_000, dtype=ENTRY)
    rows["first"] = np.random.default_rng(1).permutation(1_000_000)
    rows["last"] = rows["first"] + np.uint64(1)
    rows["epoch"] = 7
    began = time.perf_counter()
    assert accept(store, rows) == 1_000_000
    assert time.perf_counter() - began < 10
    store.close()


ranges = st.lists(
    st.tuples(st.integers(0, 99), st.integers(1, 8)).map(lambda r: (r[0], min(100, r[0] + r[1]))), max_size=12
)


@given(stretches=st.lists(st.tuples(st.sampled_from([JOURNAL, TWIN]), ranges), max_size=6))
@settings(max_examples=20, deadline=None)
def test_any_mixture_of_journals_credits_every_event_once(
    tmp_path_factory: pytest.TempPathFactory, stretches: list[tuple[JournalRecord, list[tuple[int, int]]]]
):
    """Overlaps, copies, any order: choices are disjoint, and together they are what the ledger calls done."""
    store = fresh(tmp_path_factory.mktemp("edge") / "edge.sqlite")
    for journal, some in stretches:
        accept(store, entries(*some), journal=replace(journal))
    chosen = [e for j in store.journals.values() for e in j.chosen.values()]
    assert sum(map(len, chosen)) == len(store.leases[1, 7].ledger.done)
    assert sum(len(c.commit.done) for c in store.commits.values()) == sum(map(len, chosen))
    store.leases[1, 7].ledger.validate()
    store.close()
