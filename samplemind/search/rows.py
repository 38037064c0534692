"""From a file's documents to its rows in the index: pure, so that it is tested without a store.

Invariant: the fingerprint follows from what the words, filters and vectors are made of and from
nothing else, so that indexing a file twice is seen to change nothing.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import numpy as np

from samplemind.audio.embedding import BLOCK_SIZES
from samplemind.documents.audio_file import UNSEARCHABLE, AudioFile
from samplemind.models.search_vector import EMBEDDING_DIMENSIONS
from samplemind.repositories.analyses import StoredSound
from samplemind.search.languages import TextConfiguration, configuration_for
from samplemind.search.text import split_words

INDEX_VERSION = 1
"""Raised when rows are made differently: reconciliation then writes every row anew."""

_FINGERPRINT_BYTES = 16

# Tags, packs, artists and folders are the same for many files.
_split_often = lru_cache(maxsize=16_384)(split_words)


class DocumentRow(NamedTuple):
    """One row of the staging table, in the order of its columns.

    The `…_words` become the text vector; the others are the columns of `search_documents`.
    """

    file_id: UUID
    owner_id: UUID | None
    revision: int
    path: str
    title: str
    pack: str | None
    artist: str | None
    description: str | None
    tags: list[str]
    kind: str | None
    tempo_bpm: float | None
    key: str | None
    duration_s: float | None
    loudness_lufs: float | None
    format: str | None
    language: str
    wording: str
    quality: float
    created_at: datetime
    content_hash: str | None
    embedding_version: str | None
    index_version: int
    fingerprint: bytes
    title_words: str
    tag_words: str
    name_words: str
    path_words: str


# Column → its type, in the order of `DocumentRow`.
COLUMNS: dict[str, str] = {
    "file_id": "uuid",
    "owner_id": "uuid",
    "revision": "int8",
    "path": "text",
    "title": "text",
    "pack": "text",
    "artist": "text",
    "description": "text",
    "tags": "text[]",
    "kind": "text",
    "tempo_bpm": "float4",
    "key": "text",
    "duration_s": "float4",
    "loudness_lufs": "float4",
    "format": "text",
    "language": "text",
    "wording": "text",
    "quality": "float4",
    "created_at": "timestamptz",
    "content_hash": "text",
    "embedding_version": "text",
    "index_version": "int2",
    "fingerprint": "bytea",
    "title_words": "text",
    "tag_words": "text",
    "name_words": "text",
    "path_words": "text",
}
assert tuple(COLUMNS) == DocumentRow._fields  # noqa: S101 - wrong at import, not at the COPY


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """What the index will hold of one file.

    Attributes:
        embedding: float32 little-endian, 128 finite numbers; none where nothing was measured.
        blocks: float16 little-endian, all blocks joined in the order of `BLOCK_SIZES`.
    """

    row: DocumentRow
    embedding: bytes | None = None
    blocks: bytes | None = None


def index_file(
    file: AudioFile,
    sound: StoredSound | None,
    *,
    quality: float,
    configuration: TextConfiguration = TextConfiguration.ENGLISH,
) -> IndexedFile:
    """Return the file's rows; one without a measured sound has words but no vector."""
    embedding = _usable(sound.embedding) if sound is not None else None
    blocks = _joined(sound.blocks) if sound is not None and embedding is not None else None
    tags = sorted(set(file.tags))
    title = split_words(file.title)
    pack, artist = _split_often(file.pack or ""), _split_often(file.artist or "")
    tag_words = " ".join(map(_split_often, tags))
    row = DocumentRow(
        file_id=file.id,
        owner_id=file.owner_id,
        revision=file.revision,
        path=file.path,
        title=file.title,
        pack=file.pack,
        artist=file.artist,
        description=file.description,
        tags=tags,
        kind=file.kind,
        tempo_bpm=file.tempo_bpm,
        key=file.key,
        duration_s=file.duration_s,
        loudness_lufs=file.loudness_lufs,
        format=file.format,
        language=configuration_for(file.language, configuration).value,
        wording=" ".join(filter(None, (title, tag_words, pack, artist))),
        quality=quality,
        created_at=file.created_at,
        content_hash=file.content_hash,
        embedding_version=sound.embedding_version if sound and embedding else None,
        index_version=INDEX_VERSION,
        fingerprint=b"",
        title_words=title,
        tag_words=" ".join(filter(None, (tag_words, *map(_split_often, _spoken(file))))),
        name_words=" ".join(filter(None, (pack, artist))),
        path_words=" ".join(
            filter(None, (split_words(file.description or ""), split_words(file.path)))
        ),
    )
    return IndexedFile(
        row._replace(fingerprint=_fingerprint(row, embedding, blocks)), embedding, blocks
    )


def is_searchable(file: AudioFile) -> bool:
    """Return whether the file belongs in the index: its sound was looked at and not refused."""
    return file.status not in UNSEARCHABLE


def _fingerprint(row: DocumentRow, embedding: bytes | None, blocks: bytes | None) -> bytes:
    # Neither the revision, which rises with what is not searched, nor the quality, which falls
    # with time.
    content = row._replace(revision=0, quality=0.0)
    digest = hashlib.blake2b(repr(tuple(content)).encode(), digest_size=_FINGERPRINT_BYTES)
    digest.update(embedding or b"")
    digest.update(blocks or b"")
    return digest.digest()


def _usable(embedding: bytes | None) -> bytes | None:
    # A vector of another size is of another space; zero and infinity have no direction.
    if embedding is None or len(embedding) != 4 * EMBEDDING_DIMENSIONS:
        return None
    vector = np.frombuffer(embedding, dtype="<f4").astype("<f2")
    return embedding if np.isfinite(vector).all() and vector.any() else None


def _joined(blocks: Mapping[str, bytes]) -> bytes | None:
    if any(len(blocks.get(name, b"")) != 2 * size for name, size in BLOCK_SIZES.items()):
        return None
    return b"".join(blocks[name] for name in BLOCK_SIZES)


def _spoken(file: AudioFile) -> list[str]:
    # What people type beside names: "128 bpm", "F# minor", "loop".
    words = [file.kind.replace("_", " ")] if file.kind else []
    if file.tempo_bpm:
        words.append(f"{round(file.tempo_bpm)} bpm")
    if file.key:
        words.append(file.key)
    return words
