"""Alembic migrations of the dispatcher's schema; run when the dispatcher starts."""
