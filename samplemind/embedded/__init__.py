"""PostgreSQL, MongoDB and Valkey from wheels, for a machine with nothing installed."""
