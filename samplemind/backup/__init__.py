"""Backups of both stores: taken at one moment, verified, restored."""
