"""A small library for oracles: what search answers is told from these values in plain Python.

It is the same for every run. Tempos, lengths and loudness stand on round numbers, so that the
bounds of ranges are met exactly.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.documents.analysis_result import AnalysisResult
from samplemind.documents.audio_file import AudioFile, FileStatus
from samplemind.ids import new_id
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.user import User
from samplemind.search.journal import join_writers
from samplemind.search.merge import merge_files
from samplemind.search.rows import IndexedFile, index_file
from tests.library import EMBEDDING_VERSION

KEYS = tuple(
    f"{note} {mode}"
    for note in ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    for mode in ("minor", "major")
)
TAGS = ("kick", "snare", "pad", "bass", "vocal")
FORMATS = ("wav", "flac", "mp3")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ("amber", "basalt", "cobalt", "drift", "ember", "fable", "grotto", "harbor", "indigo")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The library, and who may see what.

    Attributes:
        files: in no order; each has a title of two or three of `WORDS`.
        vectors: by file; float32, shape (128,), unit; a few files have none.
        qualities: by file.
        owners: users who own files.
        public: files in a public collection, whoever's they are.
    """

    files: Sequence[AudioFile]
    vectors: dict[UUID, NDArray[np.float32]]
    qualities: dict[UUID, float]
    owners: tuple[UUID, ...]
    public: frozenset[UUID]

    def visible(self, file: AudioFile, viewer_id: UUID | None) -> bool:
        """Whether the viewer may see the file, told from the rule alone."""
        own = viewer_id is not None and file.owner_id == viewer_id
        return own or file.owner_id is None or file.id in self.public

    def indexed(self) -> list[IndexedFile]:
        """Return the rows of all files."""
        return [self._row(file) for file in self.files]

    def _row(self, file: AudioFile) -> IndexedFile:
        vector = self.vectors.get(file.id)
        analysis = None
        if vector is not None:
            analysis = AnalysisResult.model_construct(
                embedding=vector.astype("<f4").tobytes(),
                embedding_version=EMBEDDING_VERSION,
                blocks={},
            )
        return index_file(file, analysis, quality=self.qualities[file.id])


def make_corpus(count: int, seed: int = 5) -> Corpus:
    """Return a corpus of so many files; the same for a seed."""
    chance = random.Random(seed)
    owners = tuple(UUID(int=chance.getrandbits(128), version=4) for _ in range(3))
    files = [_file(chance, owners, number) for number in range(count)]
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, 128))
    vectors = {}
    for file in files:
        if chance.random() < 0.95:
            vector = centres[chance.randrange(12)] + 0.7 * rng.standard_normal(128)
            vectors[file.id] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Corpus(
        files,
        vectors,
        {file.id: round(chance.random(), 4) for file in files},
        owners,
        frozenset(file.id for file in files if chance.random() < 0.15),
    )


async def write_corpus(session: AsyncSession, corpus: Corpus) -> None:
    """Index the corpus, with the public collections, and private ones that must change nothing."""
    await join_writers(session)
    await merge_files(session, corpus.indexed())
    await session.execute(
        insert(User), [{"id": owner, "email": f"{owner}@example.org"} for owner in corpus.owners]
    )
    for name, is_public in (("shared", True), ("secret", False)):
        collection = {
            "id": new_id(),
            "owner_id": corpus.owners[0],
            "name": name,
            "is_public": is_public,
        }
        await session.execute(insert(AudioCollection), [collection])
        inside = [file.id for file in corpus.files if not is_public or file.id in corpus.public]
        await session.execute(
            insert(AudioCollectionItem),
            [
                {
                    "id": new_id(),
                    "collection_id": collection["id"],
                    "audio_file_id": file_id,
                    "position": position,
                }
                for position, file_id in enumerate(inside)
            ],
        )
    await session.execute(text("ANALYZE"))


def _file(chance: random.Random, owners: Sequence[UUID], number: int) -> AudioFile:
    words = chance.sample(WORDS, chance.choice((2, 3)))
    loop = chance.random() < 0.5
    return AudioFile.model_construct(
        id=UUID(int=chance.getrandbits(128), version=4),
        owner_id=chance.choice((*owners, None)),
        path=f"/{chance.choice(WORDS)}/{number}.wav",
        title=" ".join(words),
        pack=chance.choice((None, *WORDS)),
        artist=chance.choice((None, *WORDS)),
        description=" ".join(chance.sample(WORDS, 4)) if chance.random() < 0.3 else None,
        tags=sorted(chance.sample(TAGS, chance.randrange(4))),
        kind=("loop" if loop else "one_shot") if chance.random() < 0.9 else None,
        tempo_bpm=float(chance.choice((60, 64, 70, 87, 120, 128, 140, 174))) if loop else None,
        key=chance.choice(KEYS) if chance.random() < 0.7 else None,
        duration_s=chance.choice((0.25, 0.5, 1.0, 2.0, 8.0)),
        loudness_lufs=chance.choice((None, -30.0, -20.0, -14.0, -9.5)),
        format=chance.choice(FORMATS),
        status=FileStatus.ANALYZED,
        content_hash="0" * 64,
        created_at=EPOCH + timedelta(days=chance.randrange(10)),
        revision=1,
    )
