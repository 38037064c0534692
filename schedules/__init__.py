"""When jobs run: the table of beat entries."""
