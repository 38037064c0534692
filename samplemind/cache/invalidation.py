"""Which cached values a write makes invalid, and that this happens whatever fails.

A transaction notes what it changes (`note_change`); around its commit the tags stand in a list of
what is owed, in the broker's Redis, which forgets nothing. After the commit they are invalidated
and leave the list. What a killed process or an unreachable cache leaves there is paid by
`settle_debts`, with every drain of the index.

Invariant: when a write has returned, no cached value from before it is served, unless the cache
was unreachable; then, within one round of `settle_debts` after it is back. A write never fails
because of the cache.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import Delete, Insert, Table, Update, event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, object_session

from samplemind.cache.computed import ComputedCache
from samplemind.errors import CommitOutcomeUnknownError
from samplemind.log import get_logger
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.search_document import SearchDocument
from samplemind.models.user import User

INDEX = "index"
"""Of what may depend on any file in the index, whoever's it is."""

PUBLISHED = "published"
"""Of what may depend on any file that is in a public collection."""

GENERATION = "generation"
"""Of what depends on the index at all: a rebuild changes it."""

COLLECTIONS = "collections"
"""Of what depends on what is in collections and who may see them."""

_OWED = "sm:cache:owed"
_NOTED = "samplemind_cache_tags"
_UNPUBLISHED = "samplemind_cache_unpublished"
# The process that owed this is dead, or has its transaction open for longer than any may be.
_ABANDONED_S = 900
_MOST_DEBTS = 10_000

_log = get_logger(__name__)


def owner_tag(owner_id: UUID | None) -> str:
    """Return the tag of what depends on this owner's files alone; none: the library's own."""
    return f"owner.{owner_id or 'library'}"


def note_change(session: AsyncSession, *tags: str) -> None:
    """Have the tags invalidated once the session's transaction has committed."""
    session.info.setdefault(_NOTED, set()).update(tags)


async def note_files(session: AsyncSession, ids: Collection[UUID]) -> None:
    """Note that rows of these files change; call it before and after, for an owner may change."""
    if not ids:
        return
    owners = select(SearchDocument.owner_id).where(SearchDocument.file_id.in_(ids)).distinct()
    found = await session.scalars(owners)
    note_change(session, INDEX, *map(owner_tag, found))
    if await any_published(session, ids):
        note_change(session, PUBLISHED)
    else:
        session.info.setdefault(_UNPUBLISHED, set()).update(ids)


async def any_published(session: AsyncSession, ids: Collection[UUID]) -> bool:
    """Return whether any of these files is in a public collection now."""
    found = await session.scalar(
        select(AudioCollectionItem.id)
        .join(AudioCollection)
        .where(AudioCollectionItem.audio_file_id.in_(ids), AudioCollection.is_public)
        .limit(1)
    )
    return found is not None


def _shown_changed(_mapper: object, _connection: object, target: object) -> None:
    session = object_session(target)
    if session is not None:
        session.info.setdefault(_NOTED, set()).add(COLLECTIONS)


for _model in (AudioCollection, AudioCollectionItem):
    for _event in ("after_insert", "after_update", "after_delete"):
        event.listen(_model, _event, _shown_changed)
# With an account go its collections, by the database's own doing.
event.listen(User, "after_delete", _shown_changed)


@event.listens_for(Session, "do_orm_execute")
def _statement_runs(state: ORMExecuteState) -> None:
    statement = state.statement
    if not isinstance(statement, Insert | Update | Delete) or not isinstance(
        statement.table, Table
    ):
        return
    name = statement.table.name
    deletes_users = name == User.__tablename__ and isinstance(statement, Delete)
    if deletes_users or name in (AudioCollection.__tablename__, AudioCollectionItem.__tablename__):
        state.session.info.setdefault(_NOTED, set()).add(COLLECTIONS)


def noted(session: AsyncSession) -> frozenset[str]:
    """Return what the session's transaction has noted."""
    return frozenset(session.info.get(_NOTED, ()))


def noted_unpublished(session: AsyncSession) -> frozenset[UUID]:
    """Return the changed files that were in no public collection when they were noted."""
    return frozenset(session.info.get(_UNPUBLISHED, ()))


async def _spare_nothing() -> frozenset[str]:
    return frozenset()


@asynccontextmanager
async def invalidating(
    tags: Collection[str],
    cache: ComputedCache,
    broker: Redis,
    *,
    spare: Callable[[], Awaitable[Collection[str]]] = _spare_nothing,
) -> AsyncIterator[None]:
    """Invalidate the tags after the block, which commits; nothing where it fails.

    A commit whose outcome is unknown may have happened, so it is taken for one that did.

    Args:
        tags: what the transaction changes, or may change.
        cache: what has the values.
        broker: keeps what is owed.
        spare: is asked after the commit which of the tags it did not change after all.
    """
    debts = [f"{uuid4().hex} {tag}" for tag in tags]
    await _owe(broker, debts)
    try:
        yield
    except CommitOutcomeUnknownError:
        await _pay(broker, cache, tags, debts)
        raise
    except BaseException:
        await _forget(broker, debts)
        raise
    await _pay(broker, cache, set(tags) - set(await spare()), debts)


async def settle_debts(cache: ComputedCache, broker: Redis) -> int:
    """Invalidate what is owed; return how many tags.

    What may still belong to an open transaction is invalidated and stays owed.
    """
    try:
        owed: Any = await broker.zrange(_OWED, 0, _MOST_DEBTS - 1, withscores=True)
    except RedisError as error:
        _log.warning("cache.debts_unknown", error=type(error).__name__)
        return 0
    if not owed:
        return 0
    tags = {debt.decode().split(" ", 1)[1] for debt, _ in owed}
    if not await cache.invalidate(*tags):
        return 0
    before = time.time() - _ABANDONED_S
    await _forget(broker, [debt.decode() for debt, since in owed if since < before])
    return len(tags)


async def _pay(
    broker: Redis, cache: ComputedCache, tags: Collection[str], debts: Iterable[str]
) -> None:
    if await cache.invalidate(*tags):
        await _forget(broker, debts)
    else:
        # The transaction has ended, so one settling is enough.
        await _owe(broker, debts, since=0)
        _log.warning("cache.invalidation_owed", tags=len(tags))


async def _owe(broker: Redis, debts: Iterable[str], *, since: float | None = None) -> None:
    now = time.time() if since is None else since
    try:
        await broker.zadd(_OWED, dict.fromkeys(debts, now))
    except RedisError as error:
        # Only if this process is now killed, or the cache is down as well, is anything stale.
        _log.warning("cache.debt_not_noted", error=type(error).__name__)


async def _forget(broker: Redis, debts: Iterable[str]) -> None:
    gone = list(debts)
    if not gone:
        return
    try:
        await broker.zrem(_OWED, *gone)
    except RedisError as error:
        # It is paid once too often, which costs a few misses.
        _log.info("cache.debt_not_forgotten", error=type(error).__name__)
