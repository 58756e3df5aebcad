"""What failures come from and what is done about them: the rules, the decision, and what they take with hostile text."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.brokerage.failures import (
    ANYTHING_ELSE,
    MAX_HALVINGS,
    MAX_UNCOUNTED,
    NO_FAILURE,
    Chances,
    FailureRule,
    FailureRules,
    decide,
)
from hpcpanda.brokerage.quarantine import KEPT, SiteFault, is_barred, kept, told
from hpcpanda.dispatcher.failures_file import load_rules, standard_rules
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.failures import FailureAction, FailureFacts, FailureKind, FailureStep, listed

ALL = Chances(retries=2, elsewhere=True, memory=True, time=True)
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("used 2100 MiB; the limit is 2000 MiB (job.memory_mb)", FailureKind.MEMORY),
        ("the worker used 2100 MiB of memory; the limit is 2000 MiB", FailureKind.MEMORY),
        ("terminate called after throwing an instance of 'std::bad_alloc'", FailureKind.MEMORY),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB for an array",
            FailureKind.MEMORY,
        ),
        ("ran for more than 3600 s (job.walltime_s)", FailureKind.WALLTIME),
        ("the range took longer than 3600.0 s", FailureKind.WALLTIME),
        ("kept 1100 MiB in its work folder; the limit is 1000 MiB (job.disk_mb)", FailureKind.PAYLOAD),
        ("OSError: [Errno 28] No space left on device: '/tmp/x'", FailureKind.STORAGE),
        ("OSError: [Errno 5] Input/output error", FailureKind.STORAGE),
        ("it was ended by SIGKILL", FailureKind.NODE),
        ("srun: error: Unable to create step for job 7: Invalid", FailureKind.BATCH_SYSTEM),
        ("*** JOB 7 ON n1 CANCELLED AT 2026-11-21 DUE TO PREEMPTION ***", FailureKind.PREEMPTION),
        ("it ended with exit status 3; stderr ends with: Traceback", FailureKind.PAYLOAD),
        ("ValueError: cannot digest event 7", FailureKind.PAYLOAD),
        ("", FailureKind.PAYLOAD),
    ],
)
def test_what_is_said_tells_the_kind(error: str, kind: FailureKind) -> None:
    """By the rules that come with hpcpanda; the words are those that edges use."""
    assert standard_rules().of(error).kind is kind


def test_the_words_of_edges_are_those_of_the_rules() -> None:
    """Who changes what an edge says of a limit changes the rule, too."""
    from hpcpanda.allocation.job_limits import disk_excess
    from hpcpanda.domain.jobs import JobRequest

    assert standard_rules().of(disk_excess(JobRequest(), 2**40).why).name == "disk-limit"
    said = (ROOT / "hpcpanda/allocation/job_limits.py").read_text()
    assert "MiB (job.memory_mb)" in said
    assert "s (job.walltime_s)" in said
    agent = (ROOT / "hpcpanda/allocation/crew.py").read_text()
    assert "MiB of memory; the limit is" in agent
    assert "the range took longer than" in agent


def test_facts_count_before_words() -> None:
    """A rule matches when all that it says is so."""
    rules = standard_rules()
    assert rules.of("anything", FailureFacts(limit="memory")).kind is FailureKind.MEMORY
    assert rules.of("anything", FailureFacts(signal=9)).kind is FailureKind.NODE
    both = FailureRule(
        name="x", kind=FailureKind.NODE, action=FailureAction.RETRY, says=("a*b",), exit_statuses=(7,)
    )
    own = FailureRules(rules=(both,))
    assert own.of("xAybz", FailureFacts(exit_status=7)) is both
    assert own.of("xAybz", FailureFacts(exit_status=8)) is ANYTHING_ELSE
    assert own.of("b a", FailureFacts(exit_status=7)) is ANYTHING_ELSE


def test_hostile_text_takes_no_time() -> None:
    """The time grows with the text alone: 10 000 texts made of beginnings of the phrases, each different, in seconds.
    With regular expressions of the same meaning such a text can take longer than the sun shines."""
    rules, random = standard_rules(), Random(1)
    parts = [p for rule in rules.rules for phrase in rule.says for p in phrase.split("*")]
    texts = []
    for number in range(10_000):
        words = "".join(part[: random.randrange(len(part) + 1)] for part in random.choices(parts, k=150))
        texts.append(f"{number}{words}"[:100_000])
    texts[0] = "a" * 10_000_000
    texts[1] = "mib; the limit is " * 1_000_000
    began = time.process_time()
    for text in texts:
        rules.of(text)
    assert time.process_time() - began < 20.0


@given(
    st.sampled_from((*standard_rules().rules, ANYTHING_ELSE)),
    st.lists(
        st.tuples(st.sampled_from(FailureKind), st.sampled_from(FailureAction)).filter(
            lambda step: step[0] not in NO_FAILURE or step[1] is FailureAction.RETRY
        ),
        max_size=40,
    ),
    st.builds(
        Chances,
        retries=st.integers(0, 10),
        elsewhere=st.booleans(),
        memory=st.booleans(),
        time=st.booleans(),
        split=st.booleans(),
        raised=st.booleans(),
        crowded=st.booleans(),
    ),
)
def test_nothing_is_tried_for_ever(
    rule: FailureRule, before: list[tuple[FailureKind, FailureAction]], chances: Chances
) -> None:
    """Only what is nobody's fault is tried more often than allowed, and that not for ever; what is decided is possible."""
    steps = [
        FailureStep(at=0.0, edge="e", kind=kind, rule="r", action=action, error="") for kind, action in before
    ]
    action = decide(rule, steps, chances)
    nobodys = sum(kind in NO_FAILURE for kind, _ in before)
    halvings = sum(done is FailureAction.SPLIT for _, done in before)
    if chances.crowded:
        assert action is FailureAction.GIVE_UP
    elif rule.kind in NO_FAILURE:
        assert (action is FailureAction.RETRY) == (nobodys < MAX_UNCOUNTED)
    elif len(before) - nobodys - halvings >= chances.retries:
        assert action in (FailureAction.GIVE_UP, FailureAction.SPLIT)
    if action is FailureAction.SPLIT:
        assert chances.split
        assert chances.retries
        assert halvings < MAX_HALVINGS
    assert action is not FailureAction.ELSEWHERE or chances.elsewhere
    assert action is not FailureAction.MORE_MEMORY or (chances.memory and not chances.raised)
    assert action is not FailureAction.MORE_TIME or (chances.time and not chances.raised)


def test_more_than_is_possible_is_not_asked_for() -> None:
    """Then it is set aside; what ran with less than the next try will have is only tried again."""
    rule = standard_rules().of("std::bad_alloc")
    assert decide(rule, (), ALL) is FailureAction.MORE_MEMORY
    assert decide(rule, (), replace(ALL, memory=False)) is FailureAction.GIVE_UP
    assert decide(rule, (), replace(ALL, raised=True, memory=False)) is FailureAction.RETRY


def test_a_job_that_is_too_large_is_split_and_then_given_more() -> None:
    """The other action of the rule follows where the first is not possible: for time more is given when nothing is left to
    be split, for memory it is split when there is no more."""
    can = replace(ALL, retries=2, split=True)
    step = FailureStep(
        at=0.0, edge="e", kind=FailureKind.WALLTIME, rule="r", action=FailureAction.SPLIT, error=""
    )
    slow = standard_rules().of("", FailureFacts(limit="time"))
    assert decide(slow, (), can) is FailureAction.SPLIT
    assert decide(slow, (step,) * (MAX_HALVINGS - 1), can) is FailureAction.SPLIT
    assert decide(slow, (step,) * MAX_HALVINGS, can) is FailureAction.MORE_TIME
    assert decide(slow, (step,), replace(can, split=False)) is FailureAction.MORE_TIME
    assert decide(slow, (step,), replace(can, split=False, time=False)) is FailureAction.GIVE_UP
    assert decide(slow, (), replace(can, retries=0)) is FailureAction.GIVE_UP
    assert decide(slow, (), replace(can, raised=True)) is FailureAction.RETRY
    large = standard_rules().of("", FailureFacts(limit="memory"))
    asked = replace(step, kind=FailureKind.MEMORY, action=FailureAction.MORE_MEMORY)
    assert decide(large, (), can) is FailureAction.MORE_MEMORY
    assert decide(large, (), replace(can, memory=False)) is FailureAction.SPLIT
    assert decide(large, (asked, asked), can) is FailureAction.SPLIT
    assert decide(large, (asked, asked), replace(can, split=False)) is FailureAction.GIVE_UP


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[[rules]]\nname = "x"\nkind = "node"\naction = "retry"\notherwise = "retry"\nsays = ["a"]',
            "x: after retry there is no otherwise",
        ),
        ("rules = [", "is not TOML"),
        ("rules = []", "rules"),
        ('[[rules]]\nname = "x"\nkind = "node"\naction = "retry"', "x says nothing of the failures"),
        ('[[rules]]\nname = "x"\nkind = "ghost"\naction = "retry"\nsays = ["a"]', r"rules\.0\.kind"),
        ('[[rules]]\nname = "x"\nkind = "node"\naction = "pray"\nsays = ["a"]', r"rules\.0\.action"),
        ('[[rules]]\nname = "x"\nkind = "node"\naction = "retry"\nsays = [" * "]', "a phrase has 1 to 200"),
        ('[[rules]]\nname = "x"\nkind = "node"\naction = "retry"\nsays = ["a"]\nwhy = 1', r"rules\.0\.why"),
        (
            '[[rules]]\nname = "x"\nkind = "node"\naction = "retry"\nsays = ["a"]\n' * 2,
            "two rules are called x",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """When it is read, with its name and the field; no operator learns of it from a lost event."""
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(InvalidValue, match=problem) as refused:
        load_rules(file)
    assert refused.value.field == str(file)
    with pytest.raises(InvalidValue, match="cannot be read"):
        load_rules(tmp_path / "none")


def test_an_own_file_is_used(tmp_path: Path) -> None:
    """In the place of the rules that come with hpcpanda."""
    file = tmp_path / "rules.toml"
    file.write_text('[[rules]]\nname = "x"\nkind = "node"\naction = "retry"\nsays = ["digest"]\n')
    assert load_rules(file).of("ValueError: cannot digest event 7").name == "x"
    assert load_rules(file).of("std::bad_alloc") is ANYTHING_ELSE


def test_every_kind_action_and_rule_is_documented() -> None:
    """And every field of a rule."""
    text = (ROOT / "docs/reference/failures.md").read_text()
    names = [*FailureKind, *FailureAction, *(f.name for f in fields(FailureRule))]
    names += [rule.name for rule in standard_rules().rules] + [ANYTHING_ELSE.name]
    assert not [name for name in names if f"`{name}`" not in text]


def fault(at: float, task: int, owner: str) -> SiteFault:
    return SiteFault(at=at, task_id=task, owner=owner, kind=FailureKind.STORAGE)


def test_a_site_is_barred_by_many_faults_of_several_users() -> None:
    """Within an hour; not by one user, nor by one task, nor by what was long ago."""
    many = [fault(float(n), n % 3, "ab"[n % 2]) for n in range(5)]
    assert is_barred(many, now=10.0)
    assert not is_barred(many, now=3700.0)
    assert not is_barred(many[:4], now=10.0)
    assert not is_barred([fault(float(n), n, "a") for n in range(20)], now=30.0)
    assert not is_barred([fault(float(n), 1, "ab"[n % 2]) for n in range(20)], now=30.0)
    assert len(kept([fault(float(n), n, "a") for n in range(100)], now=100.0)) == KEPT
    assert told(many, until=610.0, now=10.0) == (
        "It is given nothing for 10 min more: 5 failures in 3 tasks were its own; of the last: "
        "a file or disk of the site could not be used."
    )


def test_a_failure_is_told_in_a_sentence() -> None:
    """With all places and tries."""
    steps = tuple(
        FailureStep(
            at=1.0,
            edge=edge,
            kind=FailureKind.NODE,
            rule="r",
            action=FailureAction.RETRY,
            error="",
            attempts=2,
        )
        for edge in ("b", "a")
    )
    told_so = listed(event=1, error="x", attempts=2, history=steps)
    assert told_so.why == "A node failed under it; it was tried 4 times on a, b."
    assert listed(event=1, error="x", attempts=2, history=()).why is None
