"""Failures as they are told: what an edge knows of one, and how an event or job came to be set aside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

from hpcpanda.domain.validation import plain_text, require_between

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

MAX_NODE = 256
"""Longest name of a node that is kept, in characters."""


class FailureKind(StrEnum):
    """What a failure comes from."""

    PAYLOAD = "payload"
    """The user's code, or its input."""
    MEMORY = "memory"
    WALLTIME = "walltime"
    NODE = "node"
    STORAGE = "storage"
    """A file system or disk of the site."""
    BATCH_SYSTEM = "batch-system"
    """The site's batch system, launcher, or start of programs."""
    LOST_HEARTBEAT = "lost-heartbeat"
    """Whoever worked on it was not heard of any more."""
    PREEMPTION = "preemption"
    """The site took its nodes back: no failure at all."""


class FailureAction(StrEnum):
    """What is done about a failure."""

    RETRY = "retry"
    """Try again, wherever comes first."""
    ELSEWHERE = "elsewhere"
    """Try again, for a while only at other sites, if any may have it."""
    MORE_MEMORY = "more-memory"
    MORE_TIME = "more-time"
    SPLIT = "split"
    """Go on as two smaller jobs; only for jobs that have several files or events."""
    QUARANTINE_NODE = "quarantine-node"
    """Try again, wherever comes first; it is put down to the node, not to the site, and a node to which several are put down
    is given nothing for a while."""
    GIVE_UP = "give-up"
    """Set it aside for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFacts:
    """What an edge knows of a failure besides its text."""

    __pydantic_config__: ClassVar = _STRICT

    exit_status: int | None = None
    """Of the command that failed."""
    signal: int | None = None
    """Number of the signal that ended it."""
    limit: Literal["memory", "time", "disk"] | None = None
    """The limit of its own that it broke."""
    node: str | None = None
    """Where it ran, at most 256 characters."""

    def __post_init__(self) -> None:
        if self.exit_status is not None:
            require_between("facts.exit_status", self.exit_status, 0, 2**31 - 1)
        if self.signal is not None:
            require_between("facts.signal", self.signal, 1, 128)
        if self.node is not None:
            object.__setattr__(self, "node", plain_text(self.node[:MAX_NODE], MAX_NODE))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuarantine:
    """A node of a site on which nothing is started for a while."""

    __pydantic_config__: ClassVar = _STRICT

    node: str
    until: float
    """Unix seconds."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureStep:
    """One failure of an event or job, and what was done about it."""

    __pydantic_config__: ClassVar = _STRICT

    at: float
    """Unix seconds."""
    edge: str
    kind: FailureKind
    rule: str
    """Name of the rule that told the kind."""
    action: FailureAction
    """What was done in the end: ``give-up`` too when the rule's action was not possible any more."""
    error: str
    """What was said, at most 500 characters."""
    attempts: int = 1
    """Tries at the site."""
    facts: FailureFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFailure:
    """One event or job set aside for good."""

    __pydantic_config__: ClassVar = _STRICT

    event: int
    error: str
    """What was said of its last failure, at most 2000 characters."""
    attempts: int = 1
    """How often it was tried alone at the site where it failed last."""
    kind: FailureKind | None = None
    """Of its last failure; None for what failed before kinds were told."""
    why: str | None = None
    """The same in a sentence for its user."""
    history: tuple[FailureStep, ...] = ()
    """Every failure of it, first to last."""


_SENTENCES: dict[FailureKind, str] = {
    FailureKind.PAYLOAD: "The payload failed on it",
    FailureKind.MEMORY: "It needed more memory than it was given",
    FailureKind.WALLTIME: "It took longer than it was given time",
    FailureKind.NODE: "A node failed under it",
    FailureKind.STORAGE: "A file or disk of the site could not be used",
    FailureKind.BATCH_SYSTEM: "The site could not start it",
    FailureKind.LOST_HEARTBEAT: "Whoever worked on it was not heard of any more",
    FailureKind.PREEMPTION: "The site took its nodes back",
}


def sentence_of(kind: FailureKind) -> str:
    """What a kind of failure means for the user, without the full stop."""
    return _SENTENCES[kind]


def listed(*, event: int, error: str, attempts: int, history: tuple[FailureStep, ...]) -> ListedFailure:
    """An event as it is told, with a sentence made of all its failures."""
    if not history:
        return ListedFailure(event=event, error=error, attempts=attempts)
    last = history[-1]
    tries = sum(step.attempts for step in history)
    where = sorted({step.edge for step in history})
    often = "once" if tries == 1 else f"{tries} times"
    split = sum(step.action is FailureAction.SPLIT for step in history)
    smaller = f", and split {split} times" if split > 1 else ", and split once" if split else ""
    why = f"{sentence_of(last.kind)}; it was tried {often} on {', '.join(where)}{smaller}."
    return ListedFailure(
        event=event, error=error, attempts=attempts, kind=last.kind, why=why, history=history
    )
