"""The cache beside the stores: fast, never wrong for long, and never the reason for an outage."""
