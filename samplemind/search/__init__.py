"""The search index in PostgreSQL: writing it and querying it."""
