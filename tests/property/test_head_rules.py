"""Whatever the order of messages, reports, exits and time: nodes are not promised twice, and all comes to an end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hpcpanda.allocation.head_rules import RESTARTS, CountNodes, Effect, HeadRules, Kill, Launch, Tell
from hpcpanda.allocation.plan import (
    AddWork,
    AllocationPlan,
    Drain,
    EndWork,
    LeasedEvents,
    MpiJobPack,
    PackStatus,
    Revoke,
    StartPack,
    TaskProgress,
    TaskWork,
    ToPack,
    TopUp,
    WorkPack,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.site import AllocationSettings, NodeSettings, Site
from tests.support.allocation import event_pack, event_spec

NODES = 3
WALLTIME_S, MARGIN_S, GRACE_S, LINGER_S = 100.0, 5.0, 4.0, 2.0
SITE = Site(
    name="t",
    spool="/spool",
    nodes=NodeSettings(count=NODES, cores=2, memory_mb=1000),
    allocation=AllocationSettings(
        walltime_s=WALLTIME_S, margin_s=MARGIN_S, grace_s=GRACE_S, linger_s=LINGER_S
    ),
)
SPEC = event_spec()

pack_ids = st.sampled_from(["p0", "p1", "p2", "p3", "nobody"])
sizes = st.integers(1, NODES)


def rules_for(*packs: WorkPack, nodes: int = NODES) -> HeadRules:
    """The rules of an allocation that begins at time 0."""
    plan = AllocationPlan(allocation_id="a", site=SITE, nodes=nodes, walltime_s=WALLTIME_S, packs=packs)
    return HeadRules(plan, 0.0)


def status(pack: WorkPack, state: str = "running", *, done: int = 0, **facts: object) -> PackStatus:
    """A pack's report."""
    tasks = (TaskProgress(task_id=1, done=done),)
    return PackStatus(pack_id=pack.pack_id, state=state, tasks=tasks, **facts)  # type: ignore[arg-type]


class HeadMachine(RuleBasedStateMachine):
    """Pretended packs that run, report, die and are killed, and an edge that says anything."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next_event = 0
        self.running: dict[str, WorkPack] = {}
        self.told: dict[str, dict[int, IntervalSet]] = {}  # what each running pack was given
        self.asked: dict[str, dict[int, IntervalSet]] = {}  # what it should have, by the edge's messages
        self.draining: set[str] = set()
        self.dropped: set[str] = set()  # drained by the edge before they began
        self.deaths: dict[str, int] = {}
        self.known: set[str] = set()
        self.left = NODES
        self.counting = False
        self.died: set[str] = set()  # of which nobody has decided yet whether they begin again

    def new_pack(self, pack_id: str, nodes: int) -> WorkPack:
        """A pack with ten events of its own."""
        self.next_event += 10
        first = self.next_event
        events = (LeasedEvents(epoch=first, events=IntervalSet.span(first, first + 10)),)
        return WorkPack(pack_id=pack_id, nodes=nodes, work=(TaskWork(task_id=1, spec=SPEC, events=events),))

    def ask(self, pack_id: str, parts: tuple[LeasedEvents, ...]) -> None:
        """Remember what the edge asked for."""
        mine = self.asked.setdefault(pack_id, {})
        for part in parts:
            mine[part.epoch] = mine.get(part.epoch, EMPTY) | part.events

    @initialize(first=sizes, second=sizes)
    def begin(self, first: int, second: int) -> None:
        """An allocation with two packs in its plan."""
        packs = self.new_pack("p0", first), self.new_pack("p1", second)
        for pack in packs:
            self.ask(pack.pack_id, pack.work[0].events)
            self.known.add(pack.pack_id)
        self.rules = rules_for(*packs)

    def act(self, effects: list[Effect]) -> None:
        """Do as the head does."""
        for effect in effects:
            match effect:
                case Launch(pack=pack, seconds=seconds):
                    assert isinstance(pack, WorkPack)
                    self.launch(pack, seconds)
                case Tell(pack_id=pack_id, message=message):
                    self.tell(pack_id, message)
                case Kill(pack_id=pack_id):
                    assert pack_id in self.running
                case CountNodes():
                    self.counting = True

    def tell(self, pack_id: str, message: ToPack) -> None:
        """Pass a message on."""
        assert pack_id in self.running
        if isinstance(message, Drain):
            self.draining.add(pack_id)
        elif isinstance(message, TopUp):
            for part in message.events:
                held = self.told[pack_id].get(part.epoch, EMPTY)
                self.told[pack_id][part.epoch] = held | part.events
        elif isinstance(message, Revoke):
            for epoch in message.epochs:
                self.told[pack_id].pop(epoch, None)

    def launch(self, pack: WorkPack, seconds: float) -> None:
        """Start a pack."""
        assert pack.pack_id not in self.running
        assert seconds <= WALLTIME_S - MARGIN_S - self.now + 1e-6
        assert not self.rules.draining
        assert not self.counting
        assert pack.nodes + sum(p.nodes for p in self.running.values()) <= self.left
        self.running[pack.pack_id] = pack
        self.died.discard(pack.pack_id)
        self.told[pack.pack_id] = {part.epoch: part.events for part in pack.work[0].events}
        # a started pack has all that the edge ever asked of it and did not revoke
        assert self.told[pack.pack_id] == self.asked[pack.pack_id]

    @rule(pack_id=pack_ids)
    def top_up(self, pack_id: str) -> None:
        """More events; a running pack gets them now, a draining one when it runs again."""
        message = TopUp(pack_id=pack_id, task_id=1, events=self.new_pack("x", 1).work[0].events)
        if pack_id in self.known:
            self.ask(pack_id, message.events)
        self.act(self.rules.on_message(message, self.now))
        if pack_id in self.running and pack_id not in self.draining:
            assert self.told[pack_id] == self.asked[pack_id]

    @rule(pack_id=pack_ids)
    def revoke(self, pack_id: str) -> None:
        """An epoch is taken away."""
        epoch = min(self.asked.get(pack_id, {}), default=999_999)
        self.asked.get(pack_id, {}).pop(epoch, None)
        self.act(self.rules.on_message(Revoke(pack_id=pack_id, task_id=1, epochs=(epoch,)), self.now))

    @rule(pack_id=pack_ids.filter(lambda p: p != "nobody"), nodes=sizes)
    def start(self, pack_id: str, nodes: int) -> None:
        """A further pack; one that is known already is not started a second time beside itself."""
        pack = self.new_pack(pack_id, nodes)
        if pack_id in self.dropped:
            return
        if pack_id not in self.known:
            self.known.add(pack_id)
            self.ask(pack_id, pack.work[0].events)
        self.act(self.rules.on_message(StartPack(pack=pack), self.now))

    @rule(pack_id=pack_ids)
    def drain_pack(self, pack_id: str) -> None:
        """One pack is told to end; one that waits is not started any more."""
        if pack_id in self.known and pack_id not in self.rules.packs:
            self.known.discard(pack_id)
            self.dropped.add(pack_id)
        self.act(self.rules.on_message(Drain(pack_id=pack_id, grace_s=GRACE_S), self.now))

    @rule()
    def drain_all(self) -> None:
        """The allocation is told to end."""
        if self.now < 30:  # not too often
            return
        self.act(self.rules.on_message(Drain(grace_s=GRACE_S), self.now))
        assert self.rules.draining

    @rule(idle=st.booleans(), done=st.integers(0, 3), which=st.integers(0, 3))
    def report(self, idle: bool, done: int, which: int) -> None:
        """A running pack tells how it is doing."""
        if pack := self._pick(which):
            if done:
                self.deaths[pack.pack_id] = 0
            self.act(self.rules.on_report(status(pack, idle=idle, done=done), self.now))

    @rule(which=st.integers(0, 3))
    def end(self, which: int) -> None:
        """A running pack ends in order."""
        if pack := self._pick(which):
            self.act(self.rules.on_report(status(pack, "ended"), self.now))
            owed = pack.pack_id in self.draining and self.told[pack.pack_id] != self.asked[pack.pack_id]
            self._leave(pack)
            self.act(self.rules.on_exit(pack.pack_id, "exit status 0", self.now))
            if owed and not self.rules.draining and not self._lost_to_another(pack):
                # what came while it was being drained is not lost
                left_out = {e: s for e, s in self.asked[pack.pack_id].items() if s}
                assert not left_out or self._runs_or_waits(pack.pack_id)

    @rule(which=st.integers(0, 3))
    def die(self, which: int) -> None:
        """A running pack dies; it is started again a bounded number of times without progress."""
        if pack := self._pick(which):
            self.deaths[pack.pack_id] = self.deaths.get(pack.pack_id, 0) + 1
            self._leave(pack)
            self.died.add(pack.pack_id)
            self.act(self.rules.on_exit(pack.pack_id, "signal SIGKILL", self.now))

    @rule(left=st.none() | st.integers(0, NODES + 1))
    def counted(self, left: int | None) -> None:
        """The batch system says how many nodes there are: packs that died go on with those, or not at all."""
        if not self.counting:
            return
        self.counting = False
        if left and left < self.left:
            self.left = left
            for pack_id in self.died:
                self.deaths[pack_id] = 0
        self.act(self.rules.on_nodes(left, self.now))
        assert self.rules.nodes == self.left
        for pack_id in self.died:
            life = self.rules.packs[pack_id]
            assert life.over or sum(p.nodes for p in self.running.values()) + life.pack.nodes > self.left
            if self.deaths[pack_id] > RESTARTS:
                assert life.over
                assert "the pack died" in str(life.status.error)

    @rule(seconds=st.floats(0.01, 6))
    def time_passes(self, seconds: float) -> None:
        """The clock goes on."""
        self.now += seconds
        self.act(self.rules.tick(self.now))

    def _pick(self, which: int) -> WorkPack | None:
        packs = sorted(self.running.values(), key=lambda p: p.pack_id)
        return packs[which % len(packs)] if packs else None

    def _leave(self, pack: WorkPack) -> None:
        del self.running[pack.pack_id]
        self.draining.discard(pack.pack_id)

    def _lost_to_another(self, pack: WorkPack) -> bool:
        taken = sum(p.nodes for p in self.running.values())
        return pack.pack_id not in self.running and taken + pack.nodes > self.left

    def _runs_or_waits(self, pack_id: str) -> bool:
        return pack_id in self.running or not self.rules.packs[pack_id].over

    @invariant()
    def nodes_are_promised_once(self) -> None:
        """Running packs never need more nodes than there are."""
        assert sum(p.nodes for p in self.running.values()) <= NODES

    @invariant()
    def the_account_agrees(self) -> None:
        """What the rules hold to be running is running."""
        if hasattr(self, "rules"):
            assert {i for i, p in self.rules.packs.items() if p.running} == set(self.running)
            assert self.rules.next_due(self.now) >= 0

    def teardown(self) -> None:
        """From wherever it is, the allocation ends by its deadline and the grace time, whoever does not."""
        if not hasattr(self, "rules"):
            return
        self.now = max(self.now, WALLTIME_S - MARGIN_S)
        self.act(self.rules.tick(self.now))
        assert self.rules.draining
        self.now += GRACE_S + 10.0
        killed = {e.pack_id for e in self.rules.tick(self.now) if isinstance(e, Kill)}
        assert killed >= set(self.running)
        for pack in list(self.running.values()):
            self._leave(pack)
            assert self.rules.on_exit(pack.pack_id, "signal SIGKILL", self.now) == []
        assert self.rules.ended


TestHead = HeadMachine.TestCase
TestHead.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def launched(effects: list[Effect]) -> list[WorkPack]:
    """The packs that are to be started."""
    return [e.pack for e in effects if isinstance(e, Launch) and isinstance(e.pack, WorkPack)]


def died(rules: HeadRules, pack_id: str, now: float, *, left: int | None = None) -> list[Effect]:
    """What follows when a pack dies, and the batch system says how many nodes are left."""
    assert rules.on_exit(pack_id, "signal SIGKILL", now) == [CountNodes()]
    return rules.on_nodes(left, now)


def mpi_job_pack(nodes: int) -> MpiJobPack:
    """A pack of one MPI job."""
    work = TaskWork(task_id=1, spec=SPEC, events=(LeasedEvents(epoch=1, events=IntervalSet.span(0, 1)),))
    return MpiJobPack(pack_id="m", nodes=nodes, work=(work,))


def test_an_allocation_without_work_ends_after_lingering() -> None:
    """Nothing to do: it waits a little for a message, then ends."""
    rules = rules_for()
    assert rules.tick(LINGER_S - 0.1) == []
    assert not rules.ended
    rules.tick(LINGER_S + 0.1)
    assert rules.ended


def test_an_idle_pack_is_drained_after_lingering_unless_topped_up() -> None:
    """A top-up in time keeps an idle pack alive."""
    pack = event_pack((1, 0, 10))
    rules = rules_for(pack)
    rules.tick(0.0)
    rules.on_report(status(pack, idle=True, done=10), 1.0)
    more = TopUp(pack_id="p", task_id=1, events=(LeasedEvents(epoch=2, events=IntervalSet.span(10, 20)),))
    assert rules.on_message(more, 2.5) == [Tell("p", more)]
    assert rules.tick(3.5) == []
    rules.on_report(status(pack, idle=True, done=20), 4.0)
    assert rules.tick(6.1) == [Tell("p", Drain(grace_s=GRACE_S))]


def test_a_top_up_for_a_draining_pack_starts_it_again() -> None:
    """What comes too late for one run of a pack is done by the next."""
    pack = event_pack((1, 0, 10))
    rules = rules_for(pack)
    rules.tick(0.0)
    rules.on_message(Drain(pack_id="p", grace_s=1.0), 1.0)
    more = LeasedEvents(epoch=2, events=IntervalSet.span(10, 20))
    assert rules.on_message(TopUp(pack_id="p", task_id=1, events=(more,)), 1.1) == []
    rules.on_report(status(pack, "ended"), 1.2)
    (again,) = launched(rules.on_exit("p", "exit status 0", 1.3))
    assert again.work[0].events == (*pack.work[0].events, more)


def test_a_pack_that_dies_while_told_to_end_stays_away() -> None:
    """A pack that the edge has drained is not started again because it died meanwhile."""
    rules = rules_for(event_pack((1, 0, 10)))
    rules.tick(0.0)
    rules.on_message(Drain(pack_id="p", grace_s=1.0), 1.0)
    assert rules.on_exit("p", "signal SIGKILL", 1.5) == []
    assert rules.packs["p"].over


def test_work_of_a_further_task_is_begun_ended_and_not_run_again() -> None:
    """A second task joins a running pack; what it is told to be done with is not part of the pack's next start."""
    pack = event_pack((1, 0, 10))
    rules = rules_for(pack)
    rules.tick(0.0)
    more = TaskWork(task_id=2, spec=SPEC, events=(LeasedEvents(epoch=1, events=IntervalSet.span(0, 5)),))
    add = AddWork(pack_id="p", work=more)
    assert rules.on_message(add, 1.0) == [Tell("p", add)]
    (again,) = launched(died(rules, "p", 2.0))
    assert again.work == (*pack.work, more)
    end = EndWork(pack_id="p", task_id=2, grace_s=1.0)
    assert rules.on_message(end, 3.0) == [Tell("p", end)]
    (again,) = launched(died(rules, "p", 4.0))
    assert again.work == pack.work


def test_epochs_of_one_task_are_not_those_of_another() -> None:
    """Epochs are counted by task: revoking one leaves the other task's alone."""
    pack = event_pack((1, 0, 10))
    more = TaskWork(task_id=2, spec=SPEC, events=(LeasedEvents(epoch=1, events=IntervalSet.span(0, 5)),))
    rules = rules_for(pack)
    rules.on_message(AddWork(pack_id="p", work=more), 0.0)
    rules.on_message(Revoke(pack_id="p", task_id=1, epochs=(1,)), 0.0)
    (first,) = launched(rules.tick(0.0))
    assert [w.events for w in first.work] == [(), more.events]


def test_a_signal_to_the_ranks_drains_the_allocation() -> None:
    """Where the batch system signals the steps only, the head hears of it from a pack."""
    pack = event_pack((1, 0, 10))
    rules = rules_for(pack)
    rules.tick(0.0)
    assert rules.on_report(status(pack, told_to_end=True), 1.0) == [Tell("p", Drain(grace_s=GRACE_S))]
    assert rules.draining
    assert rules.on_report(status(pack, told_to_end=True), 1.1) == []


def test_progress_forgives_earlier_deaths() -> None:
    """A pack that finishes events between deaths is started again more often than the limit."""
    pack = event_pack((1, 0, 10))
    rules = rules_for(pack)
    rules.tick(0.0)
    for i in range(3 * RESTARTS):
        rules.on_report(status(pack, done=1), float(i))
        assert launched(died(rules, "p", i + 0.5))


def test_packs_wait_for_nodes_in_order() -> None:
    """A wide pack at the front is not overtaken for ever by narrow ones."""
    wide, narrow = event_pack((1, 0, 10), nodes=3, pack_id="w"), event_pack((2, 0, 10), pack_id="n")
    rules = rules_for(event_pack((3, 0, 10)), wide, narrow)
    assert [p.pack_id for p in launched(rules.tick(0.0))] == ["p"]
    rules.on_report(status(event_pack((3, 0, 10)), "ended"), 1.0)
    assert [p.pack_id for p in launched(rules.on_exit("p", "exit status 0", 1.0))] == ["w"]


def test_a_pack_whose_node_is_lost_goes_on_with_the_others() -> None:
    """Fewer nodes are left than the pack had: it begins again on those, and the edge is told."""
    pack = event_pack((1, 0, 10), nodes=3)
    rules = rules_for(pack)
    rules.tick(0.0)
    (again,) = launched(died(rules, "p", 1.0, left=2))
    assert (again.nodes, again.work) == (2, pack.work)
    assert rules.nodes == rules.packs["p"].status.nodes == 2
    rules.on_report(status(pack), 2.0)
    assert rules.packs["p"].status.nodes == 2


def test_a_pack_leaves_nodes_to_those_that_live() -> None:
    """The lost node was of the pack that died: the other one keeps its nodes."""
    rules = rules_for(event_pack((1, 0, 10), pack_id="q"), event_pack((2, 0, 10), nodes=2))
    assert len(launched(rules.tick(0.0))) == 2
    (again,) = launched(died(rules, "p", 1.0, left=2))
    assert (again.pack_id, again.nodes) == ("p", 1)


def test_deaths_by_lost_nodes_are_not_the_packs_fault() -> None:
    """Only deaths on nodes that live on are counted against a pack; even the last one may be of a lost node."""
    rules = rules_for(event_pack((1, 0, 10), nodes=3))
    rules.tick(0.0)
    for i in range(RESTARTS):
        assert launched(died(rules, "p", float(i), left=3))
    for i in range(RESTARTS + 1):
        assert launched(died(rules, "p", 5.0 + i, left=2))
    assert launched(died(rules, "p", 20.0, left=2)) == []
    assert rules.packs["p"].status.error == "the pack died: signal SIGKILL"


def test_nodes_that_cannot_be_counted_change_nothing() -> None:
    """Without an answer, or with one that makes no sense, a pack begins again as it was."""
    for left in (None, 0, 3, 99):
        rules = rules_for(event_pack((1, 0, 10), nodes=3))
        rules.tick(0.0)
        (again,) = launched(died(rules, "p", 1.0, left=left))
        assert again.nodes == rules.nodes == 3


def test_an_mpi_job_that_needs_more_nodes_than_are_left_stays_undone() -> None:
    """It ends without a word against it, and what waits behind it begins."""
    rules = rules_for(mpi_job_pack(3))  # type: ignore[arg-type]
    rules.on_message(StartPack(pack=event_pack((2, 0, 10), nodes=3)), 0.0)
    assert [type(e) for e in rules.tick(0.0)] == [Launch]
    (after,) = launched(died(rules, "m", 1.0, left=2))
    assert (after.pack_id, after.nodes) == ("p", 2)
    assert rules.packs["m"].over
    assert (rules.packs["m"].status.state, rules.packs["m"].status.error) == ("ended", None)


def test_an_mpi_job_that_still_fits_is_run_again() -> None:
    """Nodes enough are left."""
    rules = rules_for(mpi_job_pack(2))  # type: ignore[arg-type]
    rules.tick(0.0)
    assert [type(e) for e in died(rules, "m", 1.0, left=2)] == [Launch]


def test_nothing_begins_while_nodes_are_counted() -> None:
    """Neither the pack that died nor one that waits; a pack that is told to end meanwhile stays away."""
    rules = rules_for(event_pack((1, 0, 10), nodes=3))
    rules.tick(0.0)
    rules.on_exit("p", "signal SIGKILL", 1.0)
    rules.on_message(StartPack(pack=event_pack((2, 0, 10), pack_id="q")), 1.0)
    assert rules.tick(9.0) == []
    assert not rules.draining
    assert rules.on_message(Drain(pack_id="p", grace_s=1.0), 9.1) == []
    assert [p.pack_id for p in launched(rules.on_nodes(None, 9.2))] == ["q"]
    assert rules.packs["p"].over
