"""Passwords, tokens and permissions: pure functions and ciphers that know no store."""
