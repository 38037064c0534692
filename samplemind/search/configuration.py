"""Which text configuration the index is in, beside the one that queries are read in.

A row keeps the words as its configuration wrote them. After a change of the setting, new rows are
in the new one and the others wait for a rebuild: until then some of their words are not found.

Invariant: it tells, and changes nothing.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.languages import TextConfiguration

MEND = "samplemind index rebuild"

# What the last rebuild wrote; before the first one, what most of some rows are in: files that name
# a language of their own are few.
_INDEXED_IN = text("""
SELECT coalesce(
    (SELECT text_configuration FROM search_rebuilds
     WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1),
    (SELECT mode() WITHIN GROUP (ORDER BY language)
     FROM (SELECT language FROM search_documents LIMIT 10000) AS sampled))
WHERE EXISTS (SELECT FROM search_documents)
""")


_IS_MIGRATED = text("""
SELECT EXISTS (SELECT FROM information_schema.columns
               WHERE table_schema = current_schema()
                 AND (table_name, column_name) = ('search_rebuilds', 'text_configuration'))
""")


async def index_configuration(session: AsyncSession) -> str | None:
    """Return the configuration that the index's words are in; none where it has no rows."""
    if not await session.scalar(_IS_MIGRATED):
        return None
    found: str | None = await session.scalar(_INDEXED_IN)
    return found


def outdated_words(indexed_in: str | None, asked_in: TextConfiguration) -> str | None:
    """Return what is wrong where rows and queries differ in their configuration; else none."""
    if indexed_in is None or indexed_in == asked_in:
        return None
    return (
        f"the index is in the text configuration {indexed_in}, and queries are read in "
        f"{asked_in.value}: some words are not found until `{MEND}`"
    )
