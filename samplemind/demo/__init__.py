"""A small sample pack that the demo synthesises, so that it needs no download."""
