"""Queries on legal holds.

Invariant: a hold is never deleted; it is released, and its row says when.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.models.legal_hold import LegalHold
from samplemind.repositories.rows import changed_rows


class LegalHoldRepository:
    """Reads and writes holds."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def place(
        self, *, user_id: UUID | None = None, tag: str | None = None, reason: str
    ) -> LegalHold:
        """Hold all that belongs to a user, or all files with a tag.

        Raises:
            InvalidInputError: not exactly one of both is named, or no reason is given.
        """
        if (user_id is None) == (tag is None) or not reason.strip():
            message = "a hold names either a user or a tag, and a reason"
            raise InvalidInputError(message)
        hold = LegalHold(user_id=user_id, tag=tag, reason=reason.strip())
        self._session.add(hold)
        await self._session.flush()
        return hold

    async def release(self, hold_id: UUID) -> None:
        """End a hold.

        Raises:
            NotFoundError: none of this id counts.
        """
        changed = await changed_rows(
            self._session,
            update(LegalHold)
            .where(LegalHold.id == hold_id, LegalHold.released_at.is_(None))
            .values(released_at=func.now()),
        )
        if not changed:
            message = f"there is no hold {hold_id} that counts"
            raise NotFoundError(message)

    async def active(self) -> Sequence[LegalHold]:
        """Return the holds that count, the oldest first."""
        found = await self._session.scalars(
            select(LegalHold).where(LegalHold.released_at.is_(None)).order_by(LegalHold.created_at)
        )
        return found.all()
