"""Scopes: what a token allows, and the bundles of them that the dispatcher's own tokens stand for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

PUBLIC = "public"
"""Scope of the routes that need no token."""


class Scope(StrEnum):
    """One thing that a token may allow; every route needs exactly one."""

    SELF = "self"
    """Ask who one is, change or give up one's own token; every token has it."""
    TASKS_READ = "tasks:read"
    """See tasks: one's own, and those of one's groups."""
    TASKS_WRITE = "tasks:write"
    """Submit tasks, change and cancel one's own."""
    TASKS_ALL = "tasks:all"
    """See the tasks of everybody, and submit for any group; it widens the other two and opens no route alone."""
    EDGES_READ = "edges:read"
    """See the edges that have registered."""
    METRICS_READ = "metrics:read"
    """Read the figures of the dispatcher."""
    EDGE = "edge"
    """Act as the one edge that the token names."""
    ADMIN = "admin"
    """Read the audit log, take tokens back."""


class TokenKind(StrEnum):
    """Whom a token of the dispatcher's own is made for."""

    USER = "user"
    EDGE = "edge"
    ADMIN = "admin"
    MONITOR = "monitor"


_USER = frozenset({Scope.SELF, Scope.TASKS_READ, Scope.TASKS_WRITE, Scope.TASKS_ALL, Scope.EDGES_READ})

BUNDLES: Mapping[TokenKind, frozenset[Scope]] = {
    TokenKind.USER: _USER,
    TokenKind.EDGE: frozenset({Scope.SELF, Scope.EDGE}),
    TokenKind.ADMIN: _USER | {Scope.METRICS_READ, Scope.ADMIN},
    TokenKind.MONITOR: frozenset({Scope.SELF, Scope.METRICS_READ}),
}
"""What a token of each kind allows."""
