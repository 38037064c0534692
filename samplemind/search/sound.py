"""What a search by sound looks for: a vector, where it comes from, and several of them as one.

Invariant: a `Sound` that exists can be compared: its vector is finite, not zero, has the index's
dimensions and numbers that a half-precision vector can hold. Versions are never mixed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.audio.embedding import INPUT_DIMENSIONS
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_vector import (
    EMBEDDING_DIMENSIONS,
    FreshSearchVector,
    SearchBlocks,
    SearchVector,
)
from samplemind.search.filters import Filters
from samplemind.search.query_limits import limit_queries

Vector = NDArray[np.float32]

# How far "but not this" pushes away, as a share of how much "like that" pulls (Rocchio).
DISLIKE_WEIGHT = 0.5
MOST_EXAMPLES = 100
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST_LENGTH = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A sound to compare with the library's.

    Attributes:
        vector: float32, shape (128,), of any length but zero.
        embedding_version: the space that the vector is in.
        blocks: its raw blocks joined as by `join_blocks`; needed only for aspect weights.
        made_from: files of the library that it comes from; a search never returns them.

    Raises:
        InvalidInputError: the vector or the blocks cannot be compared.
    """

    vector: Vector
    embedding_version: str
    blocks: Vector | None = None
    made_from: tuple[UUID, ...] = ()

    def __post_init__(self) -> None:
        check_vector(self.vector)
        if not self.embedding_version or "\x00" in self.embedding_version:
            message = "an embedding has a version: name the one that made the vector"
            raise InvalidInputError(message)
        if self.blocks is not None and (
            self.blocks.shape != (INPUT_DIMENSIONS,) or not np.isfinite(self.blocks).all()
        ):
            message = f"the blocks of a sound are {INPUT_DIMENSIONS} finite numbers"
            raise InvalidInputError(message)

    @property
    def direction(self) -> Vector:
        """The vector at unit length."""
        return unit(self.vector)


def check_vector(vector: NDArray[Any]) -> None:
    """Refuse what cannot be compared with the index's vectors.

    Raises:
        InvalidInputError: another shape, numbers that are not finite or too large, or zero.
    """
    if vector.shape != (EMBEDDING_DIMENSIONS,):
        message = (
            f"a vector of {EMBEDDING_DIMENSIONS} numbers is needed, not of shape {vector.shape}"
        )
        raise InvalidInputError(message)
    if vector.dtype.kind not in "fiu":
        message = f"a vector holds real numbers, not {vector.dtype}"
        raise InvalidInputError(message)
    if not np.isfinite(vector).all():
        message = "the vector has numbers that are not finite (NaN or infinity)"
        raise InvalidInputError(message)
    if np.abs(vector).max() > _LARGEST:
        message = f"the vector has numbers beyond ±{_LARGEST:.0f}"
        raise InvalidInputError(message)
    if np.linalg.norm(vector.astype(np.float64)) < _SMALLEST_LENGTH:
        message = "the vector is zero, so it has no direction to compare"
        raise InvalidInputError(message)


def unit(vector: NDArray[Any]) -> Vector:
    """Return the vector at length 1, float32; it must not be zero."""
    wide = vector.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide), dtype=np.float32)


def combine(
    likes: Sequence[Sound],
    dislikes: Sequence[Sound] = (),
    *,
    dislike_weight: float = DISLIKE_WEIGHT,
) -> Sound:
    """Return the one sound that is like all of `likes` but not like `dislikes` (Rocchio, 1971).

    Each example counts the same, whatever its length. Aspect weights compare with the mean of the
    liked sounds' blocks.

    Raises:
        InvalidInputError: no liked sound, too many, two versions, a bad weight, or sounds that
            cancel each other out.
    """
    if not 1 <= len(likes) + len(dislikes) <= MOST_EXAMPLES or not likes:
        message = f"name at least one sound to be like, and at most {MOST_EXAMPLES} in all"
        raise InvalidInputError(message)
    if not 0 <= dislike_weight <= 1:
        message = f"the weight of disliked sounds is from 0 to 1, not {dislike_weight}"
        raise InvalidInputError(message)
    versions = sorted({sound.embedding_version for sound in (*likes, *dislikes)})
    if len(versions) > 1:
        message = f"embeddings of different versions cannot be compared: {', '.join(versions)}"
        raise InvalidInputError(message)
    vector = np.mean([sound.direction for sound in likes], axis=0)
    if dislikes:
        vector = vector - dislike_weight * np.mean([each.direction for each in dislikes], axis=0)
    if np.linalg.norm(vector) < _SMALLEST_LENGTH:
        message = "the sounds cancel each other out: name fewer, or other ones to be unlike"
        raise InvalidInputError(message)
    blocks = [sound.blocks for sound in likes if sound.blocks is not None]
    return Sound(
        unit(vector),
        versions[0],
        blocks=np.mean(blocks, axis=0, dtype=np.float32) if len(blocks) == len(likes) else None,
        made_from=tuple(file_id for each in (*likes, *dislikes) for file_id in each.made_from),
    )


async def stored_sounds(
    session: AsyncSession,
    file_ids: Iterable[UUID],
    *,
    filters: Filters | None = None,
    with_blocks: bool = False,
) -> list[Sound]:
    """Return the sounds of indexed files that the filters' viewer may see, in this order of ids.

    Args:
        session: the transaction to read in.
        file_ids: at most 100.
        filters: of which only the viewer counts; none: a stranger.
        with_blocks: read the raw blocks too, for aspect weights.

    Raises:
        NotFoundError: a file is not in the index, is not to be seen by the viewer, or has no
            embedding; the message names it.
    """
    wanted = list(file_ids)
    if len(wanted) > MOST_EXAMPLES:
        message = f"at most {MOST_EXAMPLES} sounds are combined, not {len(wanted)}"
        raise InvalidInputError(message)
    await limit_queries(session)
    viewer = _viewer(filters)
    both = union_all(
        *(
            select(table.file_id, table.embedding_version, table.embedding).where(
                table.file_id.in_(wanted), *viewer.visible(table.owner_id, table.file_id)
            )
            for table in (SearchVector, FreshSearchVector)
        )
    )
    found = {row.file_id: row for row in await session.execute(both)}
    blocks = await stored_blocks(session, wanted) if with_blocks else {}
    for file_id in wanted:
        if file_id not in found:
            raise await _missing(session, file_id, viewer)
    return [
        Sound(
            as_array(found[file_id].embedding),
            found[file_id].embedding_version,
            blocks=blocks.get(file_id),
            made_from=(file_id,),
        )
        for file_id in wanted
    ]


async def stored_sound(
    session: AsyncSession,
    file_id: UUID,
    *,
    filters: Filters | None = None,
    with_blocks: bool = False,
) -> Sound:
    """Return one indexed file's sound, as `stored_sounds` does.

    Raises:
        NotFoundError: the file is not in the index, is not to be seen, or has no embedding.
    """
    found = await stored_sounds(session, [file_id], filters=filters, with_blocks=with_blocks)
    return found[0]


async def stored_blocks(session: AsyncSession, file_ids: Sequence[UUID]) -> dict[UUID, Vector]:
    """Return the joined raw blocks of those files that have them, float32, shape (n,)."""
    rows = await session.execute(
        select(SearchBlocks.file_id, SearchBlocks.blocks).where(SearchBlocks.file_id.in_(file_ids))
    )
    blocks = {row.file_id: np.frombuffer(row.blocks, dtype="<f2") for row in rows}
    # Blocks of another layout are of another version, and cannot be compared.
    return {
        file_id: joined.astype(np.float32)
        for file_id, joined in blocks.items()
        if joined.shape == (INPUT_DIMENSIONS,)
    }


async def find_by_path(session: AsyncSession, path: str) -> UUID | None:
    """Return the id of the newest indexed file of that path that has an embedding, or none."""
    await limit_queries(session)
    found: UUID | None = await session.scalar(
        select(SearchDocument.file_id)
        .where(SearchDocument.path == path, SearchDocument.embedding_version.is_not(None))
        .order_by(SearchDocument.indexed_at.desc(), SearchDocument.file_id)
        .limit(1)
    )
    return found


def as_array(value: object) -> Vector:
    """Return a stored vector as float32, shape (128,)."""
    if isinstance(value, HalfVector):
        return np.asarray(value.to_numpy(), dtype=np.float32)
    return np.asarray(value, dtype=np.float32)


def _viewer(filters: Filters | None) -> Filters:
    whose = filters or Filters()
    return Filters(viewer_id=whose.viewer_id, everything=whose.everything)


async def _missing(session: AsyncSession, file_id: UUID, viewer: Filters) -> NotFoundError:
    # A file that is not to be seen is not told from one that is not there.
    visible = select(SearchDocument.file_id).where(
        SearchDocument.file_id == file_id, *viewer.conditions()
    )
    if await session.scalar(visible) is None:
        return NotFoundError(f"no file {file_id} in the index")
    return NotFoundError(
        f"file {file_id} has no embedding: it is silent or too short to be compared"
    )
