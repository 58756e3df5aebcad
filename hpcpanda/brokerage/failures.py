"""What a failure comes from, and what is done about it: rules that an operator can read, the first that matches counts.

A rule looks for phrases in what was said, not for regular expressions: what is said comes from payloads, and the time
that phrases take grows with the text alone, whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.failures import FailureAction, FailureFacts, FailureKind, FailureStep
from hpcpanda.domain.validation import require_between, require_name, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

TEXT_LOOKED_AT: Final = 2000
"""So many characters of what was said are looked at."""
MAX_RULES: Final = 200
MAX_PHRASES: Final = 50
MAX_PHRASE: Final = 200
"""Bounds of a set of rules, of a rule, and of a phrase in characters."""
FACTOR: Final = 2.0
"""So many times more is asked for, each time that memory or time was not enough,"""
MAX_FACTOR: Final = 4.0
"""and never more than so many times what the user asked for."""
MAX_HALVINGS: Final = 6
"""So often a job is split, and what comes of it: into at most 2**6 pieces."""
MAX_UNCOUNTED: Final = 20
"""So often a failure that is nobody's counts for nothing; what still says so after that is not believed."""
NO_FAILURE: Final = frozenset({FailureKind.PREEMPTION, FailureKind.LOST_HEARTBEAT})
"""Kinds that do not count as failures of an event or job."""
OF_THE_SITE: Final = frozenset({FailureKind.NODE, FailureKind.STORAGE, FailureKind.BATCH_SYSTEM})
"""Kinds that are put down to the site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRule:
    """One rule: it matches when all that it says of a failure is so."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """Told to operators."""
    kind: FailureKind
    """What the failure then comes from."""
    action: FailureAction
    """What is done about it, as long as that is possible."""
    otherwise: FailureAction | None = None
    """What is done where that is not possible; ``give-up`` when not said."""
    says: tuple[str, ...] = ()
    """One of these phrases is in the text, in whatever case; ``*`` in a phrase stands for anything."""
    exit_statuses: tuple[int, ...] = ()
    """The exit status is one of these."""
    signals: tuple[int, ...] = ()
    """The number of the signal is one of these."""
    limits: tuple[Literal["memory", "time", "disk"], ...] = ()
    """The limit that was broken is one of these."""

    def __post_init__(self) -> None:
        require_name("rules.name", self.name)
        if not (self.says or self.exit_statuses or self.signals or self.limits):
            raise InvalidValue("rules", f"{self.name} says nothing of the failures that it is for")
        if self.otherwise is not None and self.action in (FailureAction.GIVE_UP, self.otherwise):
            raise InvalidValue("rules.otherwise", f"{self.name}: after {self.action} there is no otherwise")
        if len(self.says) > MAX_PHRASES:
            raise InvalidValue("rules.says", f"{self.name} has more than {MAX_PHRASES} phrases")
        for phrase in self.says:
            if not phrase.strip("* ") or len(phrase) > MAX_PHRASE:
                raise InvalidValue(
                    "rules.says", f"{self.name}: a phrase has 1 to {MAX_PHRASE} characters besides '*'"
                )

    @property
    def actions(self) -> tuple[FailureAction, ...]:
        """What is done: the first that is possible."""
        return (self.action,) if self.otherwise is None else (self.action, self.otherwise)

    def matches(self, text: str, facts: FailureFacts) -> bool:
        """Whether it is for such a failure; ``text`` in lower case."""
        if self.exit_statuses and facts.exit_status not in self.exit_statuses:
            return False
        if self.signals and facts.signal not in self.signals:
            return False
        if self.limits and facts.limit not in self.limits:
            return False
        return not self.says or any(_says(text, phrase.lower()) for phrase in self.says)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRules:
    """Rules in their order. What none of them is for is put down to the payload, and set aside."""

    __pydantic_config__: ClassVar = _STRICT

    rules: tuple[FailureRule, ...]

    def __post_init__(self) -> None:
        require_nonempty("rules", self.rules)
        require_between("rules", len(self.rules), 1, MAX_RULES)
        names = [rule.name for rule in self.rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidValue("rules.name", f"two rules are called {twice}")

    def of(self, error: str, facts: FailureFacts | None = None) -> FailureRule:
        """The rule that is for a failure."""
        text, known = error[:TEXT_LOOKED_AT].lower(), facts or FailureFacts()
        return next((rule for rule in self.rules if rule.matches(text, known)), ANYTHING_ELSE)


ANYTHING_ELSE: Final = FailureRule(
    name="anything-else", kind=FailureKind.PAYLOAD, action=FailureAction.GIVE_UP, says=("anything",)
)
"""The rule for what no other is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chances:
    """What can be done for an event or job that has failed."""

    retries: int
    """So often it may be tried again."""
    elsewhere: bool
    """Another site that is there may have it."""
    memory: bool
    """More memory may be asked for."""
    time: bool
    """More time may be asked for."""
    split: bool = False
    """It is a job that may be split."""
    raised: bool = False
    """More was asked for since it was handed out: it ran with less than the next try will have."""
    crowded: bool = False
    """So many events of the task have failed that it is no accident of theirs."""


def decide(rule: FailureRule, before: Sequence[FailureStep], chances: Chances) -> FailureAction:
    """What is done about another failure.

    A job that is split counts as not tried yet, since it is another, smaller one; so often as it is split is bounded by
    itself.

    Args:
        rule: the one that is for it.
        before: earlier failures of the same event or job.
        chances: what can be done.
    """
    if chances.crowded:
        return FailureAction.GIVE_UP
    if rule.kind in NO_FAILURE:
        same = sum(step.kind in NO_FAILURE for step in before)
        return FailureAction.RETRY if same < MAX_UNCOUNTED else FailureAction.GIVE_UP
    halvings = sum(step.action is FailureAction.SPLIT for step in before)
    counted = sum(step.kind not in NO_FAILURE for step in before) - halvings
    can_split = chances.split and chances.retries > 0 and halvings < MAX_HALVINGS
    for action in rule.actions:
        if action is FailureAction.SPLIT and can_split and not (chances.raised and counted < chances.retries):
            return FailureAction.SPLIT
        if counted < chances.retries:
            done = _tried_again(action, chances)
            if done is not None:
                return done
    return FailureAction.GIVE_UP


def _tried_again(action: FailureAction, chances: Chances) -> FailureAction | None:
    """What an action comes to, for what may be tried again; None where it is not possible."""
    match action:
        case FailureAction.ELSEWHERE:
            return FailureAction.ELSEWHERE if chances.elsewhere else FailureAction.RETRY
        case FailureAction.MORE_MEMORY | FailureAction.MORE_TIME:
            possible = chances.memory if action is FailureAction.MORE_MEMORY else chances.time
            if chances.raised:
                return FailureAction.RETRY
            return action if possible else None
        case FailureAction.SPLIT:
            return FailureAction.RETRY if chances.raised and chances.split else None
        case FailureAction.GIVE_UP:
            return None
        case _:
            return action


def _says(text: str, phrase: str) -> bool:
    """Whether the parts of a phrase between its ``*`` are in a text, one behind the other."""
    at = 0
    for part in phrase.split("*"):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
