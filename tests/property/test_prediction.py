"""Prediction: sketches merge and keep their error, bounds are monotone, promises are kept, nothing is lost as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.errors import CorruptData, HpcPandaError
from hpcpanda.prediction.codec import decode, encode
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.observations import Observations, scouts, tolerance
from hpcpanda.prediction.sketch import RELATIVE_ERROR, Sketch
from hpcpanda.prediction.tasks import JobEnd, TaskWords
from hpcpanda.prediction.waits import Waiting

seconds = st.floats(1e-5, 1e9, allow_nan=False)
many = st.lists(seconds, max_size=60)
some = st.lists(seconds, min_size=1, max_size=60)
risks = st.floats(0.001, 0.999)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def observations_of(ended: list[float], censored: list[float]) -> Observations:
    return Observations(ended=sketch_of(ended), censored=sketch_of(censored))


# ---- sketches ----


@given(some)
def test_many_at_a_time_are_as_one_by_one(values: list[float]):
    """The vectorised way gives the same sketch, but for a value on the very edge of two buckets."""
    at_once = Sketch()
    at_once.add_all(np.array(values), np.ones(len(values)))
    assert at_once.total == len(values)
    for share in (0.0, 0.25, 0.5, 0.9, 1.0):
        exact = np.quantile(values, share, method="inverted_cdf")
        assert at_once.quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)


@given(some, st.floats(0.0, 1.0))
def test_a_quantile_is_within_the_stated_error(values: list[float], share: float):
    """Of the exact quantile, or of its neighbour where the share lies on the step between two values."""
    sketch = sketch_of(values)
    found = sketch.quantile(share)
    assert found is not None
    exact = [np.quantile(values, s, method="inverted_cdf") for s in (max(0.0, share - 1e-8), share)]
    assert min(abs(found - e) / e for e in exact) <= RELATIVE_ERROR * (1 + 1e-6)


@given(some, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_quantiles_are_monotone(values: list[float], one: float, two: float):
    """A larger share has no smaller value."""
    sketch = sketch_of(values)
    low, high = sketch.quantile(min(one, two)), sketch.quantile(max(one, two))
    assert low is not None
    assert high is not None
    assert low <= high


# ---- bounds ----


@given(st.lists(seconds, min_size=1, max_size=300), many, risks, risks)
def test_less_risk_asks_for_no_less(ended: list[float], censored: list[float], one: float, two: float):
    """Of two risks the smaller has the larger bound, where both are known."""
    observations = observations_of(ended, censored)
    careful, bold = observations.bound(min(one, two), 1.0), observations.bound(max(one, two), 1.0)
    assert careful is None or (bold is not None and careful >= bold)


@given(st.integers(1, 3000), risks)
def test_a_rank_is_no_less_than_the_quantile(samples: int, risk: float):
    """The bound never lies below the share that it promises."""
    rank = tolerance(samples, risk)
    assert 1 - risk <= rank.share + 1e-9
    assert rank.share <= 1.0 <= rank.factor


@given(some, many)
def test_survival_falls_from_one_to_no_less_than_nothing(ended: list[float], censored: list[float]):
    """And leaving values early never makes it fall faster than counting them as ended would."""
    shares = [share for _, share in observations_of(ended, censored).survival()]
    assert all(0.0 <= b <= a <= 1.0 for a, b in zip([1.0, *shares], shares, strict=False))
    for (index, share), whole in zip(observations_of(ended, censored).survival(), shares, strict=True):
        counted = dict(observations_of(ended + censored, []).survival())
        assert share == whole
        assert share >= min(s for i, s in counted.items() if i <= index) - 1e-9


# ---- coverage, measured ----


@dataclass(frozen=True)
class Kind:
    """A distribution of walltimes: how to draw them, and the share that exceeds a bound."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    above: Callable[[float], float]


_NORMAL = NormalDist()


def _two_kinds(rng: np.random.Generator, n: int) -> np.ndarray:
    slow = rng.random(n) < 0.2
    return np.maximum(np.where(slow, rng.normal(1000, 50, n), rng.normal(100, 5, n)), 1.0)


KINDS = {
    "exponential": Kind(lambda r, n: r.exponential(100.0, n), lambda x: math.exp(-x / 100)),
    "lognormal": Kind(lambda r, n: r.lognormal(4, 1, n), lambda x: 1 - _NORMAL.cdf(math.log(x) - 4)),
    "bimodal": Kind(
        _two_kinds,
        lambda x: 0.2 * (1 - _NORMAL.cdf((x - 1000) / 50)) + 0.8 * (1 - _NORMAL.cdf((x - 100) / 5)),
    ),
    "pareto": Kind(lambda r, n: 100 * (1 + r.pareto(1.2, n)), lambda x: min(1.0, (x / 100) ** -1.2)),
}
DRAWS = 250
LIMIT_ABOVE = 0.02
"""Share of jobs that would exceed the user's limit."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jobs", [3, 4, 5, 8, 15, 22, 60, 250, 1000])
def test_a_promise_of_ten_percent_is_kept(kind: str, jobs: int):
    """From three jobs to a thousand: in the mean over what was drawn, no more than twelve percent of later jobs exceed
    the predicted walltime; jobs above the user's limit were killed there, as they are."""
    rng = np.random.default_rng([jobs, len(kind)])
    law = KINDS[kind]
    low, high = 1.0, 1e9
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if law.above(middle) > LIMIT_ABOVE else (low, middle)
    exceeded = []
    for _ in range(DRAWS):
        knowledge = Knowledge.fresh(0.0)
        knowledge.meet(1, TaskWords(walltime_s=high), 0.0)
        took = law.draw(rng, jobs)
        knowledge.saw_jobs(1, took[took <= high], 0.0)
        knowledge.saw_jobs(1, np.full(int((took > high).sum()), high), 0.0, JobEnd.LIMIT)
        promised = knowledge.job_seconds(1, 0.0, 0.1)
        assert promised is not None
        exceeded.append(law.above(promised))
    assert np.mean(exceeded) <= 0.12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("risk", [0.02, 0.1, 0.3])
def test_the_bound_of_samples_alone_keeps_its_promise(kind: str, risk: float):
    """Without a limit to fall back on, from the first promise on."""
    law = KINDS[kind]
    for samples in (scouts(risk), 2 * scouts(risk), 100, 400):
        if samples < scouts(risk):
            continue
        rng = np.random.default_rng([samples, len(kind)])
        exceeded = []
        for _ in range(DRAWS):
            seen = Observations()
            seen.ended.add_all(law.draw(rng, samples), np.ones(samples))
            bound = seen.bound(risk, 1.0)
            assert bound is not None
            exceeded.append(law.above(bound))
        assert np.mean(exceeded) <= 1.2 * risk


@pytest.mark.parametrize("kind", ["exponential", "lognormal", "pareto"])
def test_with_three_thousand_jobs_the_promise_is_sharp(kind: str):
    """Between eight and ten percent exceed a bound of ten, so hardly more is asked for than needed."""
    rng = np.random.default_rng(len(kind))
    law = KINDS[kind]
    exceeded = []
    for _ in range(40):
        knowledge = Knowledge.fresh(0.0)
        knowledge.saw_jobs(1, law.draw(rng, 3000), 0.0)
        promised = knowledge.job_seconds(1, 0.0, 0.1)
        assert promised is not None
        exceeded.append(law.above(promised))
    assert 0.08 <= np.mean(exceeded) <= 0.1


# ---- knowledge as a whole ----

moments = st.floats(0.0, 3e8)
walltimes = st.floats(1.0, 1e7)
partitions = st.sampled_from(["", "debug"])


@st.composite
def knowledge(draw: st.DrawFn) -> Knowledge:
    """A life of a site, as told by whatever comes, at whatever times."""
    known = Knowledge.fresh(draw(moments))
    for _ in range(draw(st.integers(0, 12))):
        task, at = draw(st.integers(0, 3)), draw(moments)
        match draw(st.integers(0, 6)):
            case 0:
                words = st.none() | st.floats(0.1, 1e7)
                known.meet(
                    task,
                    TaskWords(walltime_s=draw(words), memory_mb=draw(words), event_seconds=draw(words)),
                    at,
                )
            case 1:
                known.saw_jobs(task, draw(many), at, draw(st.sampled_from(JobEnd)))
            case 2:
                counts = draw(st.lists(st.integers(1, 10**6), max_size=5))
                known.saw_events(task, counts, [draw(seconds) for _ in counts], at)
            case 3:
                known.saw_memory(task, draw(seconds), at, draw(st.sampled_from(JobEnd)))
            case 4:
                known.saw_allocation(
                    draw(st.integers(1, 5000)),
                    draw(walltimes),
                    draw(seconds),
                    at,
                    started=draw(st.booleans()),
                )
            case 5:
                known.saw_held(draw(st.integers(1, 5000)), at, at + draw(st.floats(0, 1e6)), draw(partitions))
                known.saw_preemption(at, draw(partitions))
            case _:
                known.saw_start_up(draw(seconds), at)
    return known


@settings(max_examples=80, deadline=None)
@given(knowledge(), moments)
def test_text_keeps_everything(known: Knowledge, at: float):
    """There and back is equal, tells the same, and learns on alike."""
    again = decode(encode(known))
    assert again == known
    assert again.forecast(at) == known.forecast(at)
    for one in (known, again):
        one.saw_jobs(1, [1.0, 2.0], at)
        one.saw_preemption(at)
    assert again == known


@settings(max_examples=80, deadline=None)
@given(knowledge(), moments, st.integers(0, 3), risks)
def test_whatever_was_seen_predictions_are_within_bounds(known: Knowledge, at: float, task: int, risk: float):
    """Never above the user's limit, never negative, never no number; the forecast is a valid one."""
    forecast = known.forecast(at, [Waiting(nodes=3, walltime_s=60.0, seconds=5.0)])
    assert forecast.preemptions_per_node_hour > 0
    assert all(w.median_s <= w.p90_s for w in forecast.queue_waits)
    found = known.tasks.get(task)
    job, memory, event = (
        known.job_seconds(task, at, risk),
        known.memory_mb(task, at, risk),
        known.event_seconds(task, at),
    )
    for value in (job, memory, event):
        assert value is None or 0 <= value < math.inf
    if found is not None and found.words.walltime_s is not None:
        assert job is not None
        assert job <= found.words.walltime_s
        plan = known.reservations(task)
        assert plan is None or list(plan.seconds) == sorted(set(plan.seconds))


@settings(max_examples=120, deadline=None)
@given(knowledge(), st.data())
def test_damaged_text_is_refused_or_harmless(known: Knowledge, data: st.DataObject):
    """A cut, a changed stretch: either it is refused as corrupt, or what is read can be asked and told things."""
    text = encode(known)
    first = data.draw(st.integers(0, len(text)))
    last = data.draw(st.integers(first, min(len(text), first + 20)))
    damaged = (
        text[:first] + data.draw(st.text(alphabet='0123456789eE+-.,:[]{}"nulltrf', max_size=10)) + text[last:]
    )
    try:
        read = decode(damaged)
    except CorruptData:
        return
    read.forecast(1e8)
    for task in list(read.tasks):
        read.job_seconds(task, 1e8)
        read.event_seconds(task, 1e8)
        read.reservations(task)
        try:
            read.saw_jobs(task, [1.0], 1e8)
        except HpcPandaError:
            raise AssertionError("a task that was read cannot learn") from None
