"""Tokens that end, who sees which task, browser sessions, the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply. Tasks that are there belong to no team: their owners see them, and whoever sees all."""
    op.add_column("tokens", sa.Column("expires", sa.Float(), nullable=True))
    op.add_column("tokens", sa.Column("parent", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_tokens_parent"), "tokens", ["parent"])
    op.create_index(op.f("ix_tokens_expires"), "tokens", ["expires"])
    op.create_table(
        "task_teams",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("team", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_teams")),
    )
    op.create_index(op.f("ix_task_teams_team_task_id"), "task_teams", ["team", "task_id"])
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("teams", sa.Text(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_expires"), "sessions", ["expires"])
    op.create_table(
        "logins",
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=128), nullable=False),
        sa.Column("verifier", sa.String(length=128), nullable=False),
        sa.Column("next", sa.Text(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("state", name=op.f("pk_logins")),
    )
    op.create_index(op.f("ix_logins_expires"), "logins", ["expires"])
    op.create_table(
        "audit",
        sa.Column("entry", _ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(length=160), nullable=False),
        sa.Column("did", sa.String(length=200), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_who_entry"), "audit", ["who", "entry"])
    _keep_for_ever()


def _keep_for_ever() -> None:
    """Refuse to change or delete what was written down."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is only added to'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()"
    )


def downgrade() -> None:
    """Undo. The audit log is lost."""
    op.drop_table("audit")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION audit_is_kept()")
    op.drop_table("logins")
    op.drop_table("sessions")
    op.drop_table("task_teams")
    op.drop_index(op.f("ix_tokens_expires"), table_name="tokens")
    op.drop_index(op.f("ix_tokens_parent"), table_name="tokens")
    op.drop_column("tokens", "parent")
    op.drop_column("tokens", "expires")
