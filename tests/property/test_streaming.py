"""Ranges and shares: never longer than allowed, growing at a bounded pace, shrinking at the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.task import RangePolicy
from hpcpanda.events.streaming import SHRINK, CostModel, share

policies = st.builds(
    RangePolicy,
    target_seconds=st.floats(0.001, 1000),
    max_events=st.none() | st.integers(1, 10**6),
)
priors = st.none() | st.floats(1e-9, 1e4)
finished = st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e5)), max_size=20)
lefts = st.floats(0, 1e12)


def model(prior: float | None, seen: list[tuple[int, float]]) -> CostModel:
    """A cost model that has seen ranges of so many events and seconds."""
    cost = CostModel(prior=prior)
    for events, seconds in seen:
        cost.observe(events, seconds, events)
    return cost


@given(policy=policies, prior=priors, seen=finished, left=lefts)
def test_a_range_is_never_longer_than_allowed(
    policy: RangePolicy, prior: float | None, seen: list[tuple[int, float]], left: float
) -> None:
    """At least one event, at most the policy's limit, at most a fraction of what is left for a core."""
    length = model(prior, seen).range_events(policy, left)
    assert length >= 1
    assert policy.max_events is None or length <= policy.max_events
    assert length == 1 or length <= left / SHRINK


@given(policy=policies, prior=priors, seen=finished, left=lefts)
def test_a_range_takes_the_target_time(
    policy: RangePolicy, prior: float | None, seen: list[tuple[int, float]], left: float
) -> None:
    """A range of more than one event is expected to take no longer than the target."""
    cost = model(prior, seen)
    length = cost.range_events(policy, left)
    if length > 1:
        assert cost.event_seconds is not None
        assert length * cost.event_seconds <= policy.target_seconds * 1.000001


@given(policy=policies, prior=priors, seen=finished.filter(bool), left=lefts)
def test_ranges_grow_at_a_bounded_pace(
    policy: RangePolicy, prior: float | None, seen: list[tuple[int, float]], left: float
) -> None:
    """However cheap the first events seemed, the next range is at most eight times the longest one seen."""
    longest = max(events for events, _ in seen)
    assert model(prior, seen).range_events(policy, left) <= 8 * longest


@given(policy=policies, seen=finished, left=lefts, less=st.floats(0, 1))
def test_ranges_shrink_towards_the_end(
    policy: RangePolicy, seen: list[tuple[int, float]], left: float, less: float
) -> None:
    """With less left to do a range is never longer; at the very end it is one event."""
    cost = model(None, seen)
    assert cost.range_events(policy, left * less) <= cost.range_events(policy, left)
    assert cost.range_events(policy, 1.0) == 1


@given(prior=priors, seen=finished)
def test_the_estimate_lies_within_what_was_seen(prior: float | None, seen: list[tuple[int, float]]) -> None:
    """The cost of an event is between the cheapest and the dearest seen; before that it is the prior."""
    estimate = model(prior, seen).event_seconds
    if not seen:
        assert estimate == prior
        return
    costs = [max(seconds / events, 1e-9) for events, seconds in seen]
    assert estimate is not None
    assert min(costs) * 0.999 <= estimate <= max(costs) * 1.001


def test_old_cost_is_forgotten() -> None:
    """After twenty core-seconds of dearer events the estimate is theirs."""
    cost = CostModel()
    cost.observe(10**6, 1.0, 10)
    cost.observe(20, 20.0, 1)
    assert cost.event_seconds == 1.0


@given(want=st.integers(1, 10**9), left=st.integers(1, 10**12), ranks=st.integers(1, 5000))
def test_a_share_leaves_something_for_the_others(want: int, left: int, ranks: int) -> None:
    """Never more than wanted or left, never nothing; with several nodes at most a fair fraction."""
    given_out = share(want, left, ranks)
    assert 1 <= given_out <= min(want, left)
    if ranks > 1:
        assert given_out == 1 or given_out <= left / (SHRINK * ranks)
    else:
        assert given_out == min(want, left)


@given(left=st.integers(1, 10**9), ranks=st.integers(1, 500))
def test_shares_come_to_an_end(left: int, ranks: int) -> None:
    """Handing out shares until nothing is left takes a number of steps that grows with the logarithm."""
    steps = 0
    while left:
        left -= share(10**9, left, ranks)
        steps += 1
    assert steps <= 2 * ranks * (35 + ranks.bit_length())


def test_one_slow_event_among_many_cores_does_not_decide_alone() -> None:
    """On 80 cores a range that took a minute leaves the cost near what all others took."""
    cost = CostModel(cores=80)
    for _ in range(800):
        cost.observe(1, 2.0, 1)
    cost.observe(1, 60.0, 1)
    assert cost.event_seconds is not None
    assert cost.event_seconds < 2.2
