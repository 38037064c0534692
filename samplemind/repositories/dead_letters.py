"""Dead letters: keeping, finding and closing them.

Invariant: a letter is closed once a generation, under a lock on its row; one that comes in again
after it was closed (the job was sent again and died again) is open again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.dead_letter import DeadLetter, DeadLetterState
from samplemind.repositories.rows import changed_rows


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters; what is none does not count."""

    task: str | None = None
    state: DeadLetterState | None = DeadLetterState.OPEN
    since: datetime | None = None
    text: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what a row must fulfil."""
        found: list[ColumnElement[bool]] = []
        if self.task is not None:
            found.append(DeadLetter.task == self.task)
        if self.state is not None:
            found.append(DeadLetter.state == self.state.value)
        if self.since is not None:
            found.append(DeadLetter.last_failed_at >= self.since)
        if self.text is not None:
            found.append(
                or_(
                    DeadLetter.error.icontains(self.text, autoescape=True),
                    DeadLetter.body.icontains(self.text, autoescape=True),
                    DeadLetter.job_id == self.text,
                )
            )
        return found


class DeadLetterRepository:
    """Every query over `dead_letters`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keep(self, values: dict[str, Any]) -> None:
        """Add a letter, or bring the one with its id up to date with a later death of the job.

        The same letter twice changes nothing.
        """
        new = insert(DeadLetter).values(**values)
        reopened = func.coalesce(new.excluded.last_failed_at > DeadLetter.closed_at, False)
        statement = new.on_conflict_do_update(
            index_elements=[DeadLetter.id],
            set_={
                **{
                    name: new.excluded[name]
                    for name in (
                        "job_id",
                        "body",
                        "payload",
                        "schema_version",
                        "error",
                        "traceback",
                        "attempts",
                        "worker",
                        "last_failed_at",
                    )
                },
                "occurrences": DeadLetter.occurrences + 1,
                "state": case((reopened, DeadLetterState.OPEN.value), else_=DeadLetter.state),
                "closed_at": case((reopened, None), else_=DeadLetter.closed_at),
            },
            where=new.excluded.last_failed_at > DeadLetter.last_failed_at,
        )
        await self._session.execute(statement)

    async def get(self, letter_id: UUID) -> DeadLetter | None:
        """Return one letter."""
        return await self._session.get(DeadLetter, letter_id)

    async def letter_of_job(self, job_id: str) -> UUID | None:
        """Return the id of the last letter about the job."""
        statement = (
            select(DeadLetter.id)
            .where(DeadLetter.job_id == job_id)
            .order_by(DeadLetter.last_failed_at.desc())
            .limit(1)
        )
        return await self._session.scalar(statement)

    async def find(
        self, chosen: LetterFilter, *, limit: int, skip: int = 0
    ) -> Sequence[DeadLetter]:
        """Return letters, the last death first."""
        statement = (
            select(DeadLetter)
            .where(*chosen.conditions())
            .order_by(DeadLetter.last_failed_at.desc(), DeadLetter.id)
            .offset(skip)
            .limit(limit)
        )
        return (await self._session.scalars(statement)).all()

    async def count_by_task(self) -> dict[str, int]:
        """Return how many letters there are of each job, open or not, by its name."""
        statement = select(DeadLetter.task, func.count()).group_by(DeadLetter.task)
        found = await self._session.execute(statement.order_by(DeadLetter.task))
        return {row[0]: row[1] for row in found}

    async def count(self, chosen: LetterFilter) -> int:
        """Return how many letters there are."""
        statement = select(func.count()).select_from(DeadLetter).where(*chosen.conditions())
        return int(await self._session.scalar(statement) or 0)

    async def count_open(self) -> dict[str, int]:
        """Return how many letters are open, by the cause of death."""
        chosen = (
            select(DeadLetter.code, func.count())
            .where(DeadLetter.state == DeadLetterState.OPEN.value)
            .group_by(DeadLetter.code)
        )
        rows = await self._session.execute(chosen)
        return {row[0]: row[1] for row in rows}

    async def lock(self, letter_id: UUID) -> DeadLetter | None:
        """Return one letter that nobody else changes until the transaction ends."""
        return await self._session.get(
            DeadLetter, letter_id, with_for_update=True, populate_existing=True
        )

    async def lock_some(
        self, chosen: LetterFilter, *, before: datetime, limit: int
    ) -> Sequence[DeadLetter]:
        """Return letters that died before the time, locked; those locked elsewhere are left out."""
        statement = (
            select(DeadLetter)
            .where(*chosen.conditions(), DeadLetter.last_failed_at < before)
            .order_by(DeadLetter.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return (await self._session.scalars(statement)).all()

    async def unpublished(self, *, limit: int) -> Sequence[DeadLetter]:
        """Return letters that were replayed and whose jobs the broker may not have."""
        statement = (
            select(DeadLetter)
            .where(
                DeadLetter.state == DeadLetterState.REPLAYED.value,
                DeadLetter.published_at.is_(None),
            )
            .order_by(DeadLetter.closed_at)
            .limit(limit)
        )
        return (await self._session.scalars(statement)).all()

    async def mark_published(self, replay_job_ids: Sequence[UUID]) -> int:
        """Note that the broker has these jobs; return how many were noted."""
        statement = (
            update(DeadLetter)
            .where(DeadLetter.replay_job_id.in_(replay_job_ids), DeadLetter.published_at.is_(None))
            .values(published_at=func.now())
        )
        return await changed_rows(self._session, statement)
