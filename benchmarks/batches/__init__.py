"""What batches cost and are worth: fairness, recovery, overhead, flat memory, indexing."""

from benchmarks.batches.fairness import batch_rows
from benchmarks.batches.recovery import recovery_rows
from benchmarks.row import Row


def rows(*, quick: bool) -> list[Row]:
    """Return the figures of batches and of the guarantees around them."""
    return [
        *batch_rows(items=10_000 if quick else 100_000),
        *recovery_rows(),
    ]
