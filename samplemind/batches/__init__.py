"""Batches as state machines over their items."""
