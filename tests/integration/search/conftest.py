from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections


@pytest.fixture
async def session(connections: Connections) -> AsyncIterator[AsyncSession]:
    """A PostgreSQL session, with the documents' models bound too."""
    await connections.documents()
    async with connections.postgres.session() as opened:
        yield opened
