"""Where a restore writes until all of it is there: beside what it replaces.

Databases of PostgreSQL and collections of MongoDB are filled under other names and then renamed.
So whoever uses them meets the old ones whole or the new ones whole, and a restore that fails, or is
killed, has changed nothing but room on the disk, which the next restore gives back.

Invariant: the target is locked against other backups and restores while the stage is filled; what
was there goes only after everything that replaces it is whole.
"""

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from samplemind.backup import mongo as mongo_store
from samplemind.backup.job_lock import hold_backup_lock
from samplemind.backup.postgres_restore import create_database
from samplemind.backup.postgres_tools import Server
from samplemind.errors import BackupError, SampleMindError
from samplemind.settings import MongoSettings

_SWITCH_ATTEMPTS = 20


@dataclass(frozen=True)
class Stage:
    """Where a backup is written to; without a prefix, that is its target itself."""

    postgres: Server | None
    mongo: MongoSettings | None
    prefix: str = ""
    """Of the names of collections."""


@contextmanager
def staged(
    postgres: Server | None, mongo: MongoSettings | None, *, replace: bool
) -> Iterator[Stage]:
    """Lock the target for the block, and make room beside it where it is to be replaced.

    Raises:
        ConflictError: another backup or restore of it runs.
    """
    with ExitStack() as stack:
        if postgres is not None:
            stack.enter_context(hold_backup_lock(postgres))
        if not replace:
            yield Stage(postgres, mongo)
            return
        room = None if postgres is None else stage_database(postgres)
        try:
            yield Stage(room, mongo, f"{mongo_store.STAGE}{secrets.token_hex(4)}.")
        except BaseException:
            if mongo is not None:
                with mongo_store.connect(mongo) as client:
                    mongo_store.drop_staged(client[mongo.database])
            if postgres is not None:
                drop_staged(postgres)
            raise


def switch(
    postgres: Server | None,
    stage: Stage,
    views: Iterable[tuple[str, str]] | None,
    series: Iterable[str] = (),
    *,
    whole: bool,
) -> None:
    """Put what was restored into the place of what was there; the lock was given back before.

    Args:
        postgres: the database that goes; none: that store is left alone.
        stage: what comes.
        views: MongoDB's, made after its collections have their names; none: it is left alone.
        series: names of time series, which the caller restores afterwards.
        whole: whether collections go that the backup does not have.

    Raises:
        BackupError: others connect to the old database again and again, and nothing was changed;
            or MongoDB failed after PostgreSQL was switched: the message says what lies where.
    """
    # The one that may be refused comes first. What it replaced goes last: to remove a large
    # database takes long, and until MongoDB has followed the two are of different times.
    old = None
    if postgres is not None and stage.postgres is not None:
        old = replace_database(postgres, stage.postgres)
    if stage.mongo is not None and views is not None:
        try:
            with mongo_store.connect(stage.mongo) as client:
                mongo_store.switch_collections(
                    client[stage.mongo.database], stage.prefix, views, series, whole=whole
                )
        except SampleMindError as error:
            if old is None:
                raise
            message = (
                f"PostgreSQL was switched and MongoDB was not, or not wholly ({error}): run the "
                f"same command again; until then the database before it is {old.database}, and "
                f"the restored collections begin with {stage.prefix}"
            )
            raise BackupError(message) from error
    if old is not None:
        drop_database(old)


def stage_database(server: Server) -> Server:
    """Make an empty database beside one that it is to replace; the caller holds its lock.

    What a restore that was killed has left there is removed.
    """
    drop_staged(server)
    staged = server.with_database(f"{_stage_prefix(server)}{secrets.token_hex(4)}")
    create_database(staged)
    return staged


def drop_staged(server: Server) -> None:
    """Remove what restores have left beside a database."""
    prefix = _stage_prefix(server)
    with server.with_database("postgres").connect() as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (prefix,)
        ).fetchall()
    for (name,) in rows:
        drop_database(server.with_database(name))


def drop_database(server: Server) -> None:
    """Remove a database with its sessions."""
    with server.with_database("postgres").connect() as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                sql.Identifier(server.database)
            )
        )


def replace_database(server: Server, staged: Server) -> Server:
    """Give a database the name of another, whose sessions end; return that, under its new name.

    Both names change in one transaction: whoever connects meets the one or the other, whole.

    Raises:
        BackupError: others connect again and again, or the server refuses; nothing was changed.
    """
    before = server.with_database(f"{_stage_prefix(server)}{secrets.token_hex(4)}")
    name, new = sql.Identifier(server.database), sql.Identifier(staged.database)
    old = sql.Identifier(before.database)
    with server.with_database("postgres").connect() as connection:
        for _ in range(_SWITCH_ATTEMPTS):
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname IN (%s, %s)",
                (server.database, staged.database),
            )
            try:
                with connection.transaction():
                    # New sessions wait for its lock, and then find the other.
                    for each, to in ((name, old), (new, name)):
                        connection.execute(
                            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(each, to)
                        )
            except psycopg.errors.ObjectInUse:
                continue  # somebody came between the two statements
            except psycopg.Error as error:
                message = (
                    f"{server.database} was not replaced, and nothing was changed: "
                    f"{error.diag.message_primary or type(error).__name__}"
                )
                raise BackupError(message) from error
            return before
    message = (
        f"{server.database} was not replaced, as others connect to it again and again: stop them; "
        f"what was restored lies in {staged.database} until the next restore"
    )
    raise BackupError(message)


def _stage_prefix(server: Server) -> str:
    # Names end after 63 bytes; the digest tells databases apart that begin alike.
    digest = hashlib.sha256(server.database.encode()).hexdigest()[:8]
    beginning = server.database.encode()[:24].decode(errors="ignore")
    return f"{beginning}_{digest}_restoring_"
