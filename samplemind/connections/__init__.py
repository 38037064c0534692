"""Connections to the stores, opened lazily and closed in reverse."""
