"""Queries on analysis results.

Invariant: a result is inserted once and never changed; a newer analyser's result is another
document, and a result goes only with its file. All need the models bound:
`await connections.documents()` comes first.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from beanie.operators import In
from pymongo.errors import BulkWriteError

from samplemind.connections.mongo import is_duplicate, translating_errors
from samplemind.documents.analysis_result import AnalysisResult
from samplemind.errors import NotFoundError


class StoredSound(NamedTuple):
    """What an analysis keeps of a sound for searches: see `AnalysisResult`."""

    embedding: bytes | None
    embedding_version: str | None
    blocks: Mapping[str, bytes]


class AnalysisRepository:
    """Reads and adds analysis results."""

    async def get(self, analysis_id: UUID) -> AnalysisResult:
        """Return one result.

        Raises:
            NotFoundError: there is none of this id.
        """
        with translating_errors():
            result = await AnalysisResult.get(analysis_id)
        if result is None:
            message = f"there is no analysis {analysis_id}"
            raise NotFoundError(message)
        return result

    async def find_many(self, ids: Sequence[UUID]) -> list[AnalysisResult]:
        """Return those of the results that exist, in no order."""
        if not ids:
            return []
        with translating_errors():
            return await AnalysisResult.find(In(AnalysisResult.id, ids)).to_list()

    async def find_sounds(self, ids: Sequence[UUID]) -> dict[UUID, StoredSound]:
        """Return the sounds of those of the results that exist, by id.

        They are read without being made into documents, which takes as long as the query.
        """
        if not ids:
            return {}
        cursor = AnalysisResult.get_pymongo_collection().find(
            {"_id": {"$in": list(ids)}}, dict.fromkeys(StoredSound._fields, 1)
        )
        with translating_errors():
            return {
                found["_id"]: StoredSound(
                    found.get("embedding"),
                    found.get("embedding_version"),
                    found.get("blocks") or {},
                )
                async for found in cursor
            }

    async def delete_of_files(self, file_ids: Sequence[UUID]) -> int:
        """Forget every result of these files; return how many there were."""
        with translating_errors():
            result = await AnalysisResult.get_pymongo_collection().delete_many(
                {"audio_file_id": {"$in": list(file_ids)}}
            )
        return result.deleted_count

    async def insert_missing(self, results: Sequence[AnalysisResult]) -> None:
        """Add the results that are not there yet; what is there stays as it is."""
        if not results:
            return
        documents = [result.model_dump(mode="python", by_alias=True) for result in results]
        with translating_errors():
            try:
                await AnalysisResult.get_pymongo_collection().insert_many(documents, ordered=False)
            except BulkWriteError as error:
                # The same result is there from an earlier attempt or another worker: as good.
                if not is_duplicate(error):
                    raise
