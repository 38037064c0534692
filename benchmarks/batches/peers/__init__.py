"""Other queues with one task each: bring one document up to date in the index."""
