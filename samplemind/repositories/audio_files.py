"""Queries on audio files.

Invariant: what an analysis found is written only here, and a write that changes nothing raises no
revision. All need the models bound: `await connections.documents()` comes first.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from beanie.operators import In
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from samplemind.connections.mongo import Fields, is_duplicate, translating_errors
from samplemind.documents.audio_file import UNSEARCHABLE, AudioFile, audio_file_id
from samplemind.documents.text import store_path
from samplemind.errors import NotFoundError

# What an analysis tells of a file. Other fields belong to people and stay as they are.
_FOUND = [
    "owner_id",
    "path",
    "content_hash",
    "size_bytes",
    "title",
    "pack",
    "format",
    "codec",
    "duration_s",
    "sample_rate_hz",
    "channels",
    "bit_depth",
    "status",
    "outcome",
    "message",
    "tags",
    "kind",
    "tempo_bpm",
    "tempo_confidence",
    "tempo_alternative_bpm",
    "key",
    "key_confidence",
    "key_relative",
    "root_note",
    "loudness_lufs",
    "peak_dbfs",
    "flags",
    "name_evidence",
    "analysis_id",
    "analyzer_version",
]
_VERSION_FIELDS = {"revision": 1, "created_at": 1, "status": 1}
_VERSION_INDEX = "revisions_by_id"
# A reader may take a while with each: MongoDB drops a cursor that is not asked for ten minutes.
_STREAM_BATCH = 5000
# When and by whom it was found; not a change of the file by itself.
_PROVENANCE = ("observed_at", "batch_id")


class FileVersion(NamedTuple):
    """Orders the states of a file, also where it was deleted and made again."""

    created_at: datetime
    revision: int


class AudioFileRepository:
    """Reads and writes audio files."""

    async def get(self, file_id: UUID) -> AudioFile:
        """Return one file.

        Raises:
            NotFoundError: there is none of this id.
        """
        with translating_errors():
            file = await AudioFile.get(file_id)
        if file is None:
            message = f"there is no audio file {file_id}"
            raise NotFoundError(message)
        return file

    async def find_by_path(self, owner_id: UUID | None, path: Path) -> AudioFile | None:
        """Return the owner's file of this absolute path, or None."""
        with translating_errors():
            return await AudioFile.get(audio_file_id(owner_id, path))

    async def find_many(self, ids: Sequence[UUID]) -> list[AudioFile]:
        """Return those of the files that exist, in no order."""
        if not ids:
            return []
        with translating_errors():
            return await AudioFile.find(In(AudioFile.id, ids)).to_list()

    async def list_ids(self, owner_id: UUID | None) -> list[UUID]:
        """Return the ids of all files of the owner, in the order of their paths."""
        files = AudioFile.get_pymongo_collection()
        with translating_errors():
            cursor = files.find({"owner_id": owner_id}, {"_id": 1}).sort("path")
            return [file["_id"] async for file in cursor]

    async def stream_paths(
        self,
        owner_id: UUID | None,
        *,
        below: Path | None = None,
        not_version: str | None = None,
    ) -> AsyncIterator[tuple[UUID, str]]:
        """Yield id and stored path of the owner's files in the order of their paths.

        Args:
            below: only this file, or those below this folder.
            not_version: only those that this version of the analyser was not the last to see.
        """
        where: Fields = {"owner_id": owner_id}
        if below is not None:
            where["$or"] = _at_or_below(below)
        if not_version is not None:
            where["analyzer_version"] = {"$ne": not_version}
        cursor = AudioFile.get_pymongo_collection().find(where, {"path": 1})
        with translating_errors():
            async for file in cursor.sort("path").batch_size(_STREAM_BATCH):
                yield file["_id"], file["path"]

    async def list_owners(self) -> list[UUID | None]:
        """Return everybody who has a file; None stands for the library's own."""
        with translating_errors():
            return await AudioFile.get_pymongo_collection().distinct("owner_id")

    async def delete_many(self, ids: Sequence[UUID]) -> int:
        """Forget files; return how many were there."""
        with translating_errors():
            result = await AudioFile.get_pymongo_collection().delete_many(
                {"_id": {"$in": list(ids)}}
            )
        return result.deleted_count

    async def find_versions(self, ids: Sequence[UUID]) -> dict[UUID, FileVersion]:
        """Return the versions of those of the files that can be searched, from the index alone."""
        if not ids:
            return {}
        cursor = AudioFile.get_pymongo_collection().find(
            {"_id": {"$in": list(ids)}}, _VERSION_FIELDS
        )
        with translating_errors():
            return {
                file["_id"]: _version(file)
                async for file in cursor.hint(_VERSION_INDEX)
                if file["status"] not in UNSEARCHABLE
            }

    async def stream_versions(self) -> AsyncIterator[tuple[UUID, FileVersion]]:
        """Yield id and version of every searchable file in id order, reading the index alone."""
        # A filter would make MongoDB read the documents; a projection is answered by the index.
        cursor = AudioFile.get_pymongo_collection().find({}, _VERSION_FIELDS)
        with translating_errors():
            async for file in cursor.sort("_id").hint(_VERSION_INDEX).batch_size(_STREAM_BATCH):
                if file["status"] not in UNSEARCHABLE:
                    yield file["_id"], _version(file)

    async def write_found(self, files: Sequence[AudioFile], now: datetime) -> None:
        """Store what analyses found; a repeat changes nothing.

        A new file is inserted. Of a file that exists, the fields that an analysis owns are
        replaced and its revision rises by one, if any of them differs. A finding from an earlier
        look at the file than the stored one is dropped: the later look wins.

        Raises:
            ConflictError: another document has the same owner and path.
        """
        if not files:
            return
        with translating_errors():
            stored = await self._insert_missing(files, now)
            if stored:
                await AudioFile.get_pymongo_collection().bulk_write(
                    [
                        UpdateOne({"_id": file.id}, write_pipeline(file, now), upsert=True)
                        for file in stored
                    ],
                    ordered=False,
                )

    async def _insert_missing(self, files: Sequence[AudioFile], now: datetime) -> list[AudioFile]:
        """Insert the files that are new; return the others, and all where somebody was faster.

        Most files of a batch are new, and an insert takes half of what a decision there takes.
        """
        collection = AudioFile.get_pymongo_collection()
        cursor = collection.find({"_id": {"$in": [file.id for file in files]}}, {"_id": 1})
        present = {file["_id"] async for file in cursor}
        first: Fields = {"revision": 1, "created_at": now, "updated_at": now}
        new = [
            file.model_dump(mode="python", by_alias=True) | first
            for file in files
            if file.id not in present
        ]
        try:
            if new:
                await collection.insert_many(new, ordered=False)
        except BulkWriteError as error:
            if not is_duplicate(error):
                raise
            return list(files)
        return [file for file in files if file.id in present]


def _at_or_below(path: Path) -> list[Fields]:
    # A folder whose own name is UTF-8 may hold names that are not, which are stored as URIs.
    stored = {store_path(path), path.as_uri()}
    # The character after "/" is "0".
    below: list[Fields] = [{"path": {"$gte": f"{text}/", "$lt": f"{text}0"}} for text in stored]
    return [{"path": {"$in": sorted(stored)}}, *below]


def _version(file: Fields) -> FileVersion:
    return FileVersion(file["created_at"], file["revision"])


def write_pipeline(file: AudioFile, now: datetime) -> list[Fields]:
    """Return the update that decides, inside MongoDB, between insert, change and nothing."""
    dump = file.model_dump(mode="python", include={*_FOUND, *_PROVENANCE})
    found = {name: dump[name] for name in _FOUND}
    provenance = {name: dump[name] for name in _PROVENANCE}
    unchanged: Fields = {"$eq": [{name: f"${name}" for name in _FOUND}, {"$literal": found}]}
    changed: Fields = {
        "created_at": {"$ifNull": ["$created_at", now]},
        "updated_at": now,
        "revision": {"$add": [{"$ifNull": ["$revision", 0]}, 1]},
    }
    return [
        {
            "$replaceWith": {
                "$switch": {
                    "branches": [
                        {
                            "case": {"$gt": ["$observed_at", file.observed_at]},
                            "then": "$$ROOT",
                        },
                        {"case": unchanged, "then": _merged(provenance)},
                    ],
                    "default": _merged(found | provenance, changed),
                }
            }
        }
    ]


def _merged(literal: Fields, computed: Fields | None = None) -> dict[str, Any]:
    return {"$mergeObjects": ["$$ROOT", {"$literal": literal}, computed or {}]}
