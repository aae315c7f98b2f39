"""Alembic migrations; each runs on SQLite and on PostgreSQL."""
