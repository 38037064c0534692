"""The samplemind command; nothing imports it."""
