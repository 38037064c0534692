"""MongoDB documents."""
