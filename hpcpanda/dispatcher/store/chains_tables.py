"""Tables of tasks that grow. Rows grow with such tasks, never with events or files."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Table

from hpcpanda.dispatcher.store.tables import metadata

_Id = BigInteger().with_variant(Integer, "sqlite")

growing_tasks = Table(
    "growing_tasks",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("dataset_id", _Id, ForeignKey("datasets.dataset_id"), nullable=False),
    Column("if_abandoned", String(16), nullable=False),
    Column("seen", BigInteger, nullable=False, server_default="0"),
)
"""Tasks that read a dataset to which files may come, and what they do when nobody writes it any more. How far a task has come
is its ``total`` in ``tasks``, or where its jobs are cut up to; ``seen``: how many events the dataset had when it last
looked."""
