"""Marking matches, for many who search at once."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.search import highlight
from samplemind.search.highlight import Highlighter, Names
from samplemind.search.languages import TextConfiguration

ENGLISH = (TextConfiguration.ENGLISH.value,)


async def test_those_who_search_at_once_may_meet_more_words_than_are_kept(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(highlight, "_KNOWN_WORDS", 4)
    highlighter = Highlighter()

    async def marked(session: AsyncSession, title: str) -> list[str]:
        return await highlighter.highlight(session, [Names(title, ())], ["kick"], ENGLISH)

    async with connections.postgres.session() as one, connections.postgres.session() as other:
        assert await marked(one, "kick drum loud") == ["<b>kick</b> drum loud"]
        # One needs what is kept and a word more; the other drops what is kept meanwhile.
        found = await asyncio.gather(
            marked(one, "kick drum soft"), marked(other, "kick dark deep warm")
        )
        assert found == [["<b>kick</b> drum soft"], ["<b>kick</b> dark deep warm"]]
        assert await marked(one, "loud kick") == ["loud <b>kick</b>"]
