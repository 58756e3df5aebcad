"""Tasks of jobs: what a job asks for, what edges have room for; repeated submissions are compared whole."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JOB = (
    ("job_cores", sa.Integer),
    ("job_memory_mb", sa.BigInteger),
    ("job_gpus", sa.Integer),
    ("job_nodes", sa.Integer),
    ("job_ranks_per_node", sa.Integer),
    ("job_walltime_s", sa.Float),
    ("job_disk_mb", sa.BigInteger),
    ("job_clones", sa.Integer),
)


def upgrade() -> None:
    """Apply. Tasks that are there are tasks of events, outside of containers: there was nothing else."""
    for name, kind in _JOB:
        op.add_column("tasks", sa.Column(name, kind(), nullable=True))
    op.add_column("tasks", sa.Column("in_container", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("edges", sa.Column("room", sa.Text(), nullable=True))
    with op.batch_alter_table("task_specs") as batch:  # SQLite drops columns itself only since 3.35
        batch.drop_column("digest")


def downgrade() -> None:
    """Undo. Tasks of jobs remain; the code of then cannot read their specifications."""
    op.add_column("task_specs", sa.Column("digest", sa.String(length=64), nullable=False, server_default=""))
    specs = sa.table("task_specs", sa.column("task_id"), sa.column("spec"), sa.column("digest"))
    connection = op.get_bind()
    for task_id, text in connection.execute(sa.select(specs.c.task_id, specs.c.spec)).all():
        digest = hashlib.sha256(text.encode()).hexdigest()
        connection.execute(sa.update(specs).where(specs.c.task_id == task_id).values(digest=digest))
    op.drop_column("edges", "room")
    op.drop_column("tasks", "in_container")
    for name, _ in _JOB:
        op.drop_column("tasks", name)
