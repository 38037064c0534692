"""The kinds of batches, one module each; `samplemind.batches.kind` finds them here by name."""
