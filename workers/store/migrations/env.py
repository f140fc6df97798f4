"""Alembic runs this file. The connection comes from ``workers.store.migrations.migrate``, in a transaction that ends there."""

from __future__ import annotations

from alembic import context

from workers.store.schema import metadata

# SQLite can change most things about a table only by making a new one, which Alembic does under this name.
context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
