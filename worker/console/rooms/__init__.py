"""The rooms, one module each, in the order of the navigation."""

from worker.console.room import Room
from worker.console.rooms import (
    backups,
    batches,
    cache,
    database,
    failed_jobs,
    overview,
    schedule,
    search,
)

ROOMS: tuple[Room, ...] = (
    overview.ROOM,
    batches.ROOM,
    failed_jobs.ROOM,
    backups.ROOM,
    schedule.ROOM,
    database.ROOM,
    search.ROOM,
    cache.ROOM,
)
"""A new room is one module here, one template, and one entry in this tuple."""
