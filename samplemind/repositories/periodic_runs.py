"""Queries on the runs of periodic jobs.

Invariant: a slot has one row; a second attempt opens it again.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, func, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from samplemind.ids import new_id
from samplemind.models.periodic_run import PeriodicRun

_LONGEST_ERROR = 1000


class RunOutcome(StrEnum):
    """How an attempt ended; `retried` comes again by itself."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"


class PeriodicRunRepository:
    """Reads and writes runs."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def start(self, name: str, slot: str, job_id: str, host: str) -> UUID:
        """Note that an attempt begins; return the id of the slot's run."""
        statement = insert(PeriodicRun).values(
            id=new_id(), name=name, slot=slot, job_id=job_id, host=host
        )
        found = await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["name", "slot"],
                set_={
                    "attempts": PeriodicRun.attempts + 1,
                    "started_at": func.now(),
                    "host": host,
                    "ended_at": None,
                    "outcome": None,
                    "error": None,
                },
            ).returning(PeriodicRun.id)
        )
        return found.scalar_one()

    async def end(
        self,
        run_id: UUID,
        outcome: RunOutcome,
        seconds: float,
        figures: Mapping[str, Any],
        error: str | None,
    ) -> None:
        """Note how the attempt ended."""
        await self._session.execute(
            update(PeriodicRun)
            .where(PeriodicRun.id == run_id)
            .values(
                ended_at=func.now(),
                outcome=outcome.value,
                seconds=seconds,
                figures=_as_json(figures),
                error=error[:_LONGEST_ERROR] if error else None,
            )
        )

    async def find_by_slot(self, name: str, slot: str) -> PeriodicRun | None:
        """Return the run of a slot, if it has begun."""
        found = await self._session.scalars(
            select(PeriodicRun).where(PeriodicRun.name == name, PeriodicRun.slot == slot)
        )
        return found.first()

    async def latest(self, names: Sequence[str]) -> dict[str, PeriodicRun]:
        """Return the last started run of each job that has any."""
        return await self._last(names, ended_only=False)

    async def latest_ended(self, names: Sequence[str]) -> dict[str, PeriodicRun]:
        """Return the last run of each job that ended for good, well or not."""
        return await self._last(names, ended_only=True)

    async def newest(self, name: str, *, limit: int) -> Sequence[PeriodicRun]:
        """Return a job's runs, the last started first."""
        found = await self._session.scalars(
            select(PeriodicRun)
            .where(PeriodicRun.name == name)
            .order_by(PeriodicRun.started_at.desc())
            .limit(limit)
        )
        return found.all()

    async def between(self, name: str, start: datetime, end: datetime) -> Sequence[PeriodicRun]:
        """Return a job's runs that started in a period, the oldest first."""
        found = await self._session.scalars(
            select(PeriodicRun)
            .where(PeriodicRun.name == name, PeriodicRun.started_at.between(start, end))
            .order_by(PeriodicRun.started_at)
        )
        return found.all()

    async def _last(self, names: Sequence[str], *, ended_only: bool) -> dict[str, PeriodicRun]:
        # One index look-up a name: DISTINCT ON would read every run of jobs that run each second.
        wanted = func.unnest(cast(list(names), ARRAY(Text))).table_valued("name").alias("wanted")
        newest = select(PeriodicRun).where(PeriodicRun.name == wanted.c.name)
        if ended_only:
            newest = newest.where(
                PeriodicRun.outcome.in_([RunOutcome.SUCCEEDED.value, RunOutcome.FAILED.value])
            )
        last = newest.order_by(PeriodicRun.started_at.desc()).limit(1).lateral("last")
        run = aliased(PeriodicRun, last)
        found = await self._session.scalars(select(run).select_from(wanted).join(last, true()))
        return {each.name: each for each in found}


def _as_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures with what JSON has no word for as text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(figures), default=str))
    return plain
