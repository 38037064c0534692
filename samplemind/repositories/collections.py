"""Audio collections: naming and publishing them, and the files in them.

Invariant: `file_count` is never written here; the database keeps it.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Uuid

from samplemind.cache.invalidation import COLLECTIONS, note_change
from samplemind.errors import NotFoundError
from samplemind.ids import new_id
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.repositories.rows import changed_rows

# The order of the array is the order in the collection; a file that is there keeps its place.
_ADD_FILES = text(
    """
    INSERT INTO audio_collection_items (id, collection_id, audio_file_id, position, added_by)
    SELECT new.id, :collection_id, new.file_id, last.position + new.place, :added_by
    FROM unnest(:ids, :file_ids) WITH ORDINALITY AS new (id, file_id, place),
         (SELECT coalesce(max(position), 0) AS position
          FROM audio_collection_items WHERE collection_id = :collection_id) AS last
    ON CONFLICT (collection_id, audio_file_id) DO NOTHING
    RETURNING id
    """
).bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("file_ids", type_=ARRAY(Uuid)),
    bindparam("collection_id", type_=Uuid()),
    bindparam("added_by", type_=Uuid()),
)


class AudioCollectionRepository:
    """Every query over `audio_collections` and their items."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self,
        owner_id: UUID,
        name: str,
        *,
        description: str | None = None,
        is_public: bool = False,
    ) -> AudioCollection:
        """Add an empty collection.

        Raises:
            ConflictError: the owner has one of this name, in whatever case, or does not exist.
            InvalidInputError: the name is empty or longer than 200 characters.
        """
        collection = AudioCollection(
            owner_id=owner_id, name=name, description=description, is_public=is_public
        )
        self._session.add(collection)
        await self._session.flush()
        return collection

    async def get(self, collection_id: UUID) -> AudioCollection:
        """Return the collection as the database has it now.

        Raises:
            NotFoundError: there is none with this id.
        """
        # A session may hold it with the count from before files were added.
        collection = await self._session.get(AudioCollection, collection_id, populate_existing=True)
        if collection is None:
            message = f"there is no collection {collection_id}"
            raise NotFoundError(message)
        return collection

    async def get_by_name(self, owner_id: UUID, name: str) -> AudioCollection | None:
        """Return the owner's collection of this name, in whatever case, or none."""
        found = await self._session.scalars(
            select(AudioCollection).where(
                AudioCollection.owner_id == owner_id,
                func.lower(AudioCollection.name) == func.lower(name),
            )
        )
        return found.one_or_none()

    async def delete(self, collection_id: UUID) -> bool:
        """Delete the collection with its items; false where there is none."""
        note_change(self._session, COLLECTIONS)
        statement = delete(AudioCollection).where(AudioCollection.id == collection_id)
        return bool(await changed_rows(self._session, statement))

    async def add_files(
        self, collection_id: UUID, file_ids: Sequence[UUID], *, added_by: UUID | None = None
    ) -> int:
        """Add files at the end, in this order, and return how many were not there before.

        Raises:
            ConflictError: there is no such collection or user.
        """
        await self._lock(AudioCollection.id == collection_id)
        result = await self._session.execute(
            _ADD_FILES,
            {
                "collection_id": collection_id,
                "added_by": added_by,
                "ids": [new_id() for _ in file_ids],
                "file_ids": list(file_ids),
            },
        )
        return len(result.all())

    async def remove_files(self, collection_id: UUID, file_ids: Sequence[UUID]) -> int:
        """Take files out, and return how many were there."""
        await self._lock(AudioCollection.id == collection_id)
        return await changed_rows(
            self._session,
            delete(AudioCollectionItem).where(
                AudioCollectionItem.collection_id == collection_id,
                AudioCollectionItem.audio_file_id.in_(file_ids),
            ),
        )

    async def forget_files(self, file_ids: Sequence[UUID]) -> int:
        """Take deleted files out of every collection, and return from how many places.

        What another transaction adds meanwhile stays; a file is forgotten after it was deleted,
        so that nobody adds it any more.
        """
        holding = select(AudioCollectionItem.collection_id).where(
            AudioCollectionItem.audio_file_id.in_(file_ids)
        )
        locked = await self._lock(AudioCollection.id.in_(holding))
        return await changed_rows(
            self._session,
            delete(AudioCollectionItem).where(
                AudioCollectionItem.audio_file_id.in_(file_ids),
                AudioCollectionItem.collection_id.in_(locked),
            ),
        )

    async def items(
        self,
        collection_id: UUID,
        *,
        after: AudioCollectionItem | None = None,
        limit: int = 100,
    ) -> Sequence[AudioCollectionItem]:
        """Return a page of the collection's items in order, the one after `after`."""
        statement = select(AudioCollectionItem).where(
            AudioCollectionItem.collection_id == collection_id
        )
        if after is not None:
            place = tuple_(AudioCollectionItem.position, AudioCollectionItem.id)
            statement = statement.where(place > (after.position, after.id))
        found = await self._session.scalars(
            statement.order_by(AudioCollectionItem.position, AudioCollectionItem.id).limit(limit)
        )
        return found.all()

    async def containing(self, file_id: UUID) -> Sequence[AudioCollection]:
        """Return the collections that the file is in."""
        found = await self._session.scalars(
            select(AudioCollection)
            .join(AudioCollectionItem)
            .where(AudioCollectionItem.audio_file_id == file_id)
            .order_by(AudioCollection.id)
        )
        return found.all()

    async def of_owner(self, owner_id: UUID, limit: int = 50) -> Sequence[AudioCollection]:
        """Return the owner's collections, last changed first."""
        found = await self._session.scalars(
            select(AudioCollection)
            .where(AudioCollection.owner_id == owner_id)
            .order_by(AudioCollection.updated_at.desc())
            .limit(limit)
        )
        return found.all()

    async def public(self, limit: int = 50) -> Sequence[AudioCollection]:
        """Return public collections, last changed first."""
        found = await self._session.scalars(
            select(AudioCollection)
            .where(AudioCollection.is_public)
            .order_by(AudioCollection.updated_at.desc())
            .limit(limit)
        )
        return found.all()

    async def search(
        self, words: str, *, owner_id: UUID | None = None, limit: int = 20
    ) -> Sequence[AudioCollection]:
        """Return collections whose name contains the text: an owner's, or else public ones."""
        whose = (
            AudioCollection.is_public if owner_id is None else AudioCollection.owner_id == owner_id
        )
        found = await self._session.scalars(
            select(AudioCollection)
            .where(whose, AudioCollection.name.icontains(words, autoescape=True))
            .order_by(AudioCollection.name)
            .limit(limit)
        )
        return found.all()

    async def _lock(self, which: ColumnElement[bool]) -> Sequence[UUID]:
        # Whoever changes items will change the count: taking that lock first, in order of id,
        # keeps writers who touch the same items in another order from deadlocking, and gives
        # files that are added at once places of their own.
        note_change(self._session, COLLECTIONS)
        locked = await self._session.scalars(
            select(AudioCollection.id)
            .where(which)
            .order_by(AudioCollection.id)
            .with_for_update(key_share=True)
        )
        return locked.all()
