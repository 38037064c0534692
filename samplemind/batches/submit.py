"""From what a user names to a stored batch: owner, files, items."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.audio.discovery import find_audio_files
from samplemind.batches.planning import BatchPlan, plan
from samplemind.connections.resources import Connections
from samplemind.documents.text import canonical_path
from samplemind.errors import InvalidInputError
from samplemind.repositories.users import UserRepository


async def write_batch(
    connections: Connections,
    paths: Sequence[Path],
    *,
    owner: str | None = None,
    batch_id: UUID | None = None,
) -> BatchPlan:
    """Store a batch of the audio files that the paths stand for; nothing is published yet.

    Args:
        paths: files, taken as they are, and folders, which stand for the audio files below them.
        owner: email of the user whose files they are, made without a password where there is
            none; None: the library's own.
        batch_id: chosen by a caller who may have to repeat this; None: a new one.

    Raises:
        InvalidInputError: no path was named, there are too many files, or `owner` is no address.
        StoreUnavailableError: a store did not answer.
    """
    if not paths:
        message = "name at least one file or folder"
        raise InvalidInputError(message)
    owner_id = None if owner is None else await _owner_id(connections, owner)
    roots = await asyncio.to_thread(lambda: [canonical_path(path) for path in paths])
    return await plan(
        connections, find_audio_files(roots), owner_id=owner_id, batch_id=batch_id, roots=roots
    )


async def _owner_id(connections: Connections, email: str) -> UUID:
    async def find(session: AsyncSession) -> UUID:
        return (await UserRepository(session).get_or_create_owner(email)).id

    return await connections.postgres.run(find, idempotent=True)
