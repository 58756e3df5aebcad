"""Datasets, their files and replicas; where outputs came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply. Tasks that are there read and write no dataset."""
    op.create_table(
        "datasets",
        sa.Column("dataset_id", _ID, autoincrement=True, nullable=False),
        sa.Column("scope", sa.String(length=25), nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("meta", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("scope", "name", name=op.f("uq_datasets_scope_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "dataset_files",
        sa.Column("dataset_id", _ID, autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.String(length=80), nullable=True),
        sa.Column("digest", sa.String(length=80), nullable=True),
        sa.Column("clusters", sa.Text(), nullable=True),
        sa.Column("meta", sa.Text(), nullable=True),
        sa.Column("task_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.dataset_id"], name=op.f("fk_dataset_files_dataset_id")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "ordinal", name=op.f("pk_dataset_files")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_dataset_files_dataset_id_name")),
    )
    op.create_index(op.f("ix_dataset_files_dataset_id_first"), "dataset_files", ["dataset_id", "first"])
    _of_each("replicas", "site", "ordinal", sa.Column("path", sa.Text(), nullable=False))
    _of_each(
        "dataset_sites",
        "site",
        None,
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
    )
    _of_each(
        "dataset_tasks",
        None,
        "task_id",
        sa.Column("spec_digest", sa.String(length=80), nullable=False),
        sa.Column("source", sa.String(length=280), nullable=True),
    )
    op.add_column("tasks", sa.Column("dataset_id", sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("writes_id", sa.BigInteger(), nullable=True))


def _of_each(name: str, site: str | None, number: str | None, *columns: sa.Column[object]) -> None:
    """A table of what there is of each dataset by site, by a number, or by both."""
    keys: list[sa.Column[object]] = [sa.Column("dataset_id", _ID, autoincrement=False, nullable=False)]
    if site is not None:
        keys.append(sa.Column(site, sa.String(length=128), nullable=False))
    if number is not None:
        keys.append(sa.Column(number, sa.BigInteger(), autoincrement=False, nullable=False))
    op.create_table(
        name,
        *keys,
        *columns,
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.dataset_id"], name=op.f(f"fk_{name}_dataset_id")),
        sa.PrimaryKeyConstraint(*(key.name for key in keys), name=op.f(f"pk_{name}")),
    )


def downgrade() -> None:
    """Undo. All datasets are lost, and tasks that read one can no longer be leased."""
    op.drop_column("tasks", "writes_id")
    op.drop_column("tasks", "dataset_id")
    for table in ("dataset_tasks", "dataset_sites", "replicas", "dataset_files", "datasets"):
        op.drop_table(table)
