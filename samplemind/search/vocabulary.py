"""Words of the index as they are told to people.

Invariant: a viewer is never told a word that only files have which they may not see, however many
these are, nor how many files have it that they may not see. A word of the library's own files is
no secret; any other is told where a file that the viewer sees has it.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Text, cast, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, REGCONFIG, TSQUERY
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_text import SearchText
from samplemind.search.filters import Filters

_FIRST_TEXTS = 200


@dataclass(frozen=True, slots=True)
class CountedWord:
    """A word and how many files have it.

    Attributes:
        documents: of all files; it orders words, and only operators are told it.
        shared: of the library's own files, which everybody may see.
    """

    text: str
    documents: int
    shared: int

    def told_to(self, filters: Filters) -> int | None:
        """Return the count that the filters' viewer may know; none where that is none."""
        return self.documents if filters.everything else self.shared or None


def fold(word: str) -> str:
    """Return the word as the vocabulary has it: small letters without accents."""
    apart = unicodedata.normalize("NFD", word.lower())
    return unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))


async def visible_words(
    session: AsyncSession, words: Sequence[CountedWord], filters: Filters, configuration: str
) -> list[CountedWord]:
    """Return those of the words that a file has which the filters' viewer and owner let through.

    Args:
        session: asked about the words that the counts do not answer for.
        words: of the vocabulary.
        filters: of which only owner and viewer count.
        configuration: the text search configuration of most files.
    """
    if filters.everything and filters.owner_id is None:
        return list(words)
    asked = [word.text for word in words if filters.owner_id is not None or not word.shared]
    if not asked:
        return list(words)
    seen = set(await session.scalars(_seen(asked, filters, configuration)))
    return [word for word in words if word.text not in asked or word.text in seen]


def _seen(words: Sequence[str], filters: Filters, configuration: str) -> Any:
    texts = cast(literal(list(words), ARRAY(Text)), ARRAY(Text))
    word = func.unnest(texts).table_valued("word").render_derived("given").c.word
    query = func.plainto_tsquery(cast(configuration, REGCONFIG), word, type_=TSQUERY())
    # Materialized, so that each query is made once and not for every file that it is held against.
    asked = (
        select(word, query.label("query"))
        .cte("asked")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return select(asked.c.word).where(or_(*_reasons(asked.c.query, filters)))


def _reasons(query: Any, filters: Filters) -> list[ColumnElement[bool]]:
    # Each by itself, for which there is an index: one's own files, those in public collections.
    # The library's own files are counted in the vocabulary.
    matches = SearchText.words.op("@@")(query)
    public = (
        exists()
        .where(AudioCollection.is_public)
        .where(AudioCollectionItem.collection_id == AudioCollection.id)
        .where(SearchText.file_id == AudioCollectionItem.audio_file_id, matches)
    )
    if filters.owner_id is not None:
        if not filters.hides_nothing:
            return [public.where(SearchText.owner_id == filters.owner_id)]
        first = _first_texts(filters.owner_id)
        return [
            exists().where(first.c.words.op("@@")(query)),
            exists().where(SearchText.owner_id == filters.owner_id, matches),
        ]
    if filters.viewer_id is None:
        return [public]
    return [exists().where(SearchText.owner_id == filters.viewer_id, matches), public]


def _first_texts(owner_id: UUID) -> CTE:
    """Return some of the owner's files, which have most of the words that many files have.

    Of such a word and of somebody who has many files, the index reads every file of either.
    """
    return (
        select(SearchText.words)
        .join(SearchDocument, SearchDocument.file_id == SearchText.file_id)
        .where(SearchDocument.owner_id == owner_id)
        .limit(_FIRST_TEXTS)
        .cte("first")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
