"""Queries over the stores, one aggregate a module."""
