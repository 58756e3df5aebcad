"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.dispatcher.identity.scopes import Scope
from hpcpanda.domain.errors import Forbidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Whose tasks somebody sees: their own, and those of their groups."""

    name: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A user or an edge, and what their token allows."""

    name: str
    """The user, or the edge."""
    scopes: frozenset[Scope]
    groups: frozenset[str] = frozenset()
    """Groups whose tasks they see, and for which they may submit."""
    created: float | None = None
    """When the token was made, Unix seconds, if it is one that ``digest`` names."""
    expires: float | None = None
    """When the token ends, Unix seconds."""
    digest: str | None = None
    """Of the token, when it is one of the dispatcher's own."""
    by_cookie: bool = False
    """A browser sent it by itself."""

    @property
    def is_edge(self) -> bool:
        """It is an edge, no user."""
        return Scope.EDGE in self.scopes

    @property
    def key(self) -> str:
        """Names it among users and edges."""
        return f"{'edge' if self.is_edge else 'user'}:{self.name}"

    @property
    def sight(self) -> Sight | None:
        """Whose tasks they see; None for everybody's."""
        if Scope.TASKS_ALL in self.scopes:
            return None
        return Sight(name=self.name, groups=self.groups)

    def require(self, scope: Scope) -> None:
        """Raise Forbidden when the token does not allow it."""
        if scope not in self.scopes:
            has = ", ".join(sorted(self.scopes)) or "none"
            raise Forbidden(f"this needs a token of scope {scope}; the one sent has {has}")

    def require_edge(self, name: str) -> None:
        """Raise Forbidden when the token is another edge's."""
        self.require(Scope.EDGE)
        if self.name != name:
            raise Forbidden(f"this token is for edge {self.name!r}, not for {name!r}")

    def team_for(self, group: str | None) -> str | None:
        """The group that sees a task submitted for ``group``; without one, the only group of the caller.

        Raises:
            Forbidden: the caller is not in the group.
        """
        if group is None:
            return next(iter(self.groups)) if len(self.groups) == 1 else None
        if Scope.TASKS_ALL not in self.scopes and group not in self.groups:
            yours = ", ".join(sorted(self.groups)) or "none"
            raise Forbidden(f"you may not submit for group {group!r}; your groups: {yours}")
        return group
