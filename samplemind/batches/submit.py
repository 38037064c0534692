"""From what a user names to a stored batch: owner, subjects, items."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.audio.discovery import find_audio_files
from samplemind.batches.kind import Kind, find_kind
from samplemind.batches.planning import BatchPlan, Subject, plan
from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import audio_file_id
from samplemind.documents.batch_job import Callback
from samplemind.documents.text import canonical_path, load_path
from samplemind.errors import InvalidInputError
from samplemind.jobs.payloads import Payload
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.repositories.users import UserRepository


async def write_batch(
    connections: Connections,
    paths: Sequence[Path],
    *,
    owner: str | None = None,
    batch_id: UUID | None = None,
    kind: str = "analyze",
    callback: Payload | None = None,
) -> BatchPlan:
    """Store a batch of what the paths stand for; nothing is published yet.

    Args:
        paths: files, taken as they are, and folders, which stand for the audio files below them.
            Where none is named, and the kind allows it, it is about all files of the owner.
        owner: email of the user whose files they are, made without a password where there is
            none; None: the library's own.
        batch_id: chosen by a caller who may have to repeat this; None: a new one.
        kind: what is done with each.
        callback: a job to send once the batch has finished.

    Raises:
        InvalidInputError: no path was named, there are too many files, `owner` is no address, or
            there is no such kind.
        StoreUnavailableError: a store did not answer.
    """
    chosen = find_kind(kind)
    if not paths and chosen.select is None:
        message = "name at least one file or folder"
        raise InvalidInputError(message)
    owner_id = None if owner is None else await _owner_id(connections, owner)
    roots = await asyncio.to_thread(lambda: [canonical_path(path) for path in paths])
    return await plan(
        connections,
        _subjects(connections, chosen, roots, owner_id),
        owner_id=owner_id,
        kind=kind,
        chunk_size=chosen.chunk_size,
        batch_id=batch_id,
        roots=roots,
        callback=_callback(callback),
    )


async def write_batch_of_owner(
    connections: Connections, kind: str, owner_id: UUID | None
) -> BatchPlan:
    """Store a batch of everything of one owner that the kind is about; nothing is published yet.

    Raises:
        InvalidInputError: there is no such kind, or it needs files to be named.
        StoreUnavailableError: a store did not answer.
    """
    chosen = find_kind(kind)
    if chosen.select is None:
        message = f"a batch of kind {kind} needs files or folders to be named"
        raise InvalidInputError(message)
    return await plan(
        connections,
        chosen.select(connections, owner_id),
        owner_id=owner_id,
        kind=kind,
        chunk_size=chosen.chunk_size,
    )


def _subjects(
    connections: Connections, kind: Kind, roots: Sequence[Path], owner_id: UUID | None
) -> Iterable[Path] | AsyncIterator[Subject]:
    if not kind.in_library:
        return find_audio_files(roots)
    if not roots and kind.select is not None:
        return kind.select(connections, owner_id)
    return _files_of_library(connections, roots, owner_id)


async def _files_of_library(
    connections: Connections, roots: Sequence[Path], owner_id: UUID | None
) -> AsyncIterator[Subject]:
    """Stream the owner's files that are these or lie below them, and what else was named."""
    await connections.documents()
    for root in roots:
        found = False
        async for file_id, path in AudioFileRepository().stream_paths(owner_id, below=root):
            found = True
            yield Subject(load_path(path), file_id)
        if not found:
            yield Subject(root, audio_file_id(owner_id, root))


def _callback(payload: Payload | None) -> Callback | None:
    if payload is None:
        return None
    return Callback(name=payload.job_name, arguments=payload.model_dump(mode="json"))


async def _owner_id(connections: Connections, email: str) -> UUID:
    async def find(session: AsyncSession) -> UUID:
        return (await UserRepository(session).get_or_create_owner(email)).id

    return await connections.postgres.run(find, idempotent=True)
