"""One backup at a time per database: advisory locks held by the job's own connection.

Upkeep such as VACUUM holds the second of them together with other upkeep, a table at a time: a
backup waits for the table that is being done, and no other begins while it waits and runs.

Invariant: a lock ends with its connection, however that ends, so a killed job blocks nobody. A
job that lost its connection meanwhile has lost the lock too, and must not publish: `require` tells.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from samplemind.backup.postgres_tools import Server
from samplemind.errors import ConflictError, StoreUnavailableError
from samplemind.maintenance.locks import BACKUP_LOCK

# "smbackup" in ASCII: any number does that nobody else locks in this database.
LOCK_KEY = 0x736D6261636B7570

UPKEEP_WAIT_S = 900
"""Seconds that a backup waits for the upkeep of a table to end."""

Require = Callable[[], None]


@contextmanager
def hold_backup_lock(server: Server) -> Iterator[Require]:
    """Hold the lock for the block; yield a check that it is still held.

    Raises:
        ConflictError: another backup or restore of this database runs, or the upkeep of a table
            does not end.
        StoreUnavailableError: the server did not answer, or (by the check) the lock was lost.
    """
    with server.connect() as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
        if row is None or not row[0]:
            message = f"another backup or restore of {server.database} is running: {_who(server)}"
            raise ConflictError(message)
        _stop_upkeep(connection)

        def require() -> None:
            try:
                connection.execute("SELECT 1")
            except psycopg.Error as error:
                message = "the job lost its lock on the database: its backup is not published"
                raise StoreUnavailableError(message) from error

        yield require


def _stop_upkeep(connection: psycopg.Connection) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{UPKEEP_WAIT_S}s",))
    try:
        connection.execute("SELECT pg_advisory_lock(hashtext(%s), 0)", (BACKUP_LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        message = (
            f"the upkeep of a table has not ended for {UPKEEP_WAIT_S} s: see `samplemind db vacuum`"
            ", or start the backup again later"
        )
        raise ConflictError(message) from error


def _who(server: Server) -> str:
    with server.connect() as connection:
        row = connection.execute(
            "SELECT a.pid, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.granted",
            (LOCK_KEY >> 32, LOCK_KEY & 0xFFFFFFFF),
        ).fetchone()
    return "it has just ended" if row is None else f"session {row[0]} since {row[1]:%H:%M:%S} UTC"
