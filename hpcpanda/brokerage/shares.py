"""What an operator says about the order: the tree of shares, quotas, boosts and weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between, require_name

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

MAX_SHARES = 1000
MAX_DEPTH = 8
MAX_RULES = 10_000
"""Most users with a quota of their own, boosts, and names in one share."""
DEFAULT = "default"
"""The one share there is when an operator names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of all computing, or of its parent's."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    parent: str | None = None
    """The share of which it is a part; a part of the whole when not said."""
    target: float
    """Its weight among those with the same parent. 0: served only when none of the others has work."""
    groups: tuple[str, ...] = ()
    """Tasks of these groups are served from it."""
    users: tuple[str, ...] = ()
    """Tasks of these users are, when their group is in no share."""

    def __post_init__(self) -> None:
        require_name("shares.name", self.name)
        require_between(f"shares.{self.name}.target", self.target, 0.0, 1e6)
        for label, names in (("groups", self.groups), ("users", self.users)):
            if len(names) > MAX_RULES:
                raise InvalidValue(f"shares.{self.name}.{label}", f"names more than {MAX_RULES}")
            for name in names:
                require_name(f"shares.{self.name}.{label}", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a user may use in 24 hours before others come first."""

    __pydantic_config__: ClassVar = _STRICT

    core_hours: float | None = None
    """Of every user not named; no limit when not said."""
    users: dict[str, float] = field(default_factory=dict)
    """Core-hours of single users."""

    def __post_init__(self) -> None:
        if len(self.users) > MAX_RULES:
            raise InvalidValue("quota.users", f"names more than {MAX_RULES}")
        if self.core_hours is not None:
            require_between("quota.core_hours", self.core_hours, 1e-6, 1e12)
        for user, hours in self.users.items():
            require_name("quota.users", user)
            require_between(f"quota.users.{user}", hours, 1e-6, 1e12)

    def of(self, user: str) -> float | None:
        """Core-hours of a user; None: without limit."""
        return self.users.get(user, self.core_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """Points for the tasks of a group or user, everywhere or at one site; what is not said is any."""

    __pydantic_config__: ClassVar = _STRICT

    points: float
    """Added to the order; negative to put back. 100 000 make up for 2.7 times the target used."""
    group: str | None = None
    user: str | None = None
    site: str | None = None

    def __post_init__(self) -> None:
        require_between("boosts.points", self.points, -1e6, 1e6)
        for label in ("group", "user", "site"):
            if (name := getattr(self, label)) is not None:
                require_name(f"boosts.{label}", name)
        if self.group is None and self.user is None:
            raise InvalidValue("boosts", "say 'group' or 'user': points for all change no order")

    def applies(self, *, group: str | None, user: str, site: str | None) -> bool:
        """Whether it is for such a task at such a site."""
        return all(
            wanted is None or wanted == there
            for wanted, there in ((self.group, group), (self.user, user), (self.site, site))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Points of each component of the order."""

    __pydantic_config__: ClassVar = _STRICT

    share: float = 100_000.0
    """A share that has used 1/e of its target is so far ahead of one that has used all of it."""
    age: float = 10.0
    """For each whole hour that a task has waited since it was last served."""
    patience_h: float = 24.0
    """Tasks that have waited longer gain a million points an hour, which in the end beats everything."""
    deadline: float = 1500.0
    """For a task that can only just be finished by its deadline, or not any more."""
    deadline_h: float = 24.0
    """With so many hours to spare a deadline counts nothing yet; less, in proportion."""
    quota: float = 1000.0
    """Taken off at a user's quota; twice as much at twice the quota, and beyond."""
    failures: float = 1000.0
    """Taken off a task of which everything fails; of which a part fails, in proportion."""

    def __post_init__(self) -> None:
        for name in ("share", "age", "deadline", "quota", "failures"):
            require_between(f"weights.{name}", getattr(self, name), 0.0, 1e6)
        require_between("weights.patience_h", self.patience_h, 0.0, 1e5)
        require_between("weights.deadline_h", self.deadline_h, 0.01, 1e5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePlan:
    """All that an operator says about the order; without a word: one share, and no quota."""

    __pydantic_config__: ClassVar = _STRICT

    shares: tuple[Share, ...] = (Share(name=DEFAULT, target=1.0),)
    default_share: str | None = None
    """Serves whoever is in no other; to be said unless one of the shares is called ``default``."""
    half_life_h: float = 24.0
    """Use so many hours ago counts half."""
    quota: Quota = field(default_factory=Quota)
    boosts: tuple[Boost, ...] = ()
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        require_between("half_life_h", self.half_life_h, 0.1, 10_000.0)
        if not 1 <= len(self.shares) <= MAX_SHARES:
            raise InvalidValue("shares", f"name at least one and at most {MAX_SHARES}")
        if len(self.boosts) > MAX_RULES:
            raise InvalidValue("boosts", f"more than {MAX_RULES}")
        tree = ShareTree(self)
        if self.fallback not in tree.leaves:
            raise InvalidValue(
                "default_share", f"{self.fallback!r} is no share without parts; name one that serves the rest"
            )

    @property
    def fallback(self) -> str:
        """The share of those who are in no other."""
        return self.default_share or DEFAULT


class ShareTree:
    """The shares with what is a part of what. Refuses a plan whose shares make no tree."""

    def __init__(self, plan: SharePlan) -> None:
        self.plan = plan
        self.shares = {share.name: share for share in plan.shares}
        if len(self.shares) < len(plan.shares):
            raise InvalidValue("shares", "two have the same name")
        self.children: dict[str | None, list[Share]] = defaultdict(list)
        for share in plan.shares:
            if share.parent is not None and share.parent not in self.shares:
                raise InvalidValue(f"shares.{share.name}.parent", f"there is no share {share.parent!r}")
            self.children[share.parent].append(share)
        for share in plan.shares:
            self._require_rooted(share)
        self.leaves = {name for name in self.shares if name not in self.children}
        self._of_group = self._members("groups")
        self._of_user = self._members("users")

    def leaf_of(self, *, owner: str, group: str | None) -> str:
        """The share that serves a task: its group's, else its user's, else the one for the rest."""
        found = self._of_group.get(group) if group is not None else None
        return found or self._of_user.get(owner) or self.plan.fallback

    def path(self, name: str) -> Iterator[Share]:
        """The share and what it is a part of, upwards."""
        share: Share | None = self.shares[name]
        while share is not None:
            yield share
            share = self.shares[share.parent] if share.parent is not None else None

    def _require_rooted(self, share: Share) -> None:
        for depth, _ in enumerate(self.path(share.name)):
            if depth >= MAX_DEPTH:
                raise InvalidValue(
                    f"shares.{share.name}.parent", f"it is a part of itself, or deeper than {MAX_DEPTH}"
                )

    def _members(self, label: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for share in self.plan.shares:
            names: tuple[str, ...] = getattr(share, label)
            if names and share.name not in self.leaves:
                raise InvalidValue(
                    f"shares.{share.name}.{label}", "it has parts; name them in one of its parts instead"
                )
            for name in names:
                if name in found:
                    raise InvalidValue(
                        f"shares.{share.name}.{label}", f"{name!r} is in share {found[name]!r} too"
                    )
                found[name] = share.name
        return found
