"""Run by Alembic: applies the migrations over the connection it was given."""

from __future__ import annotations

from alembic import context

from hpcpanda.dispatcher.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
