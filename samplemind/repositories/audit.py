"""The audit log: writing entries, and the questions that are asked of it.

Invariant: entries are only added. Each question is answered newest first, a page at a time, and
those over a period name it, so that partitions outside of it are not touched.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.audit_log import ActorKind, AuditLog, AuditOutcome
from samplemind.repositories.sessions import IpAddress


class AuditLogRepository:
    """Every query over `audit_logs`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def record(
        self,
        action: str,
        *,
        resource_kind: str,
        resource_id: str | None = None,
        actor_kind: ActorKind = ActorKind.SYSTEM,
        actor_id: UUID | None = None,
        outcome: AuditOutcome = AuditOutcome.SUCCESS,
        ip_address: IpAddress | None = None,
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> AuditLog:
        """Add an entry to the caller's transaction: it is kept exactly if what it tells is.

        Args:
            action: `area.verb` in lower case, `collection.publish`.
            resource_kind: what it was done to, `collection`.
            resource_id: which of them; none where the action has no single one.
            actor_kind: a user, an API key, or the platform itself.
            actor_id: which user or key; may be none for the platform only.
            outcome: whether it was done, refused, or went wrong.
            ip_address: from where.
            request_id: ties together what one request did.
            details: what else is needed to understand it; no secrets.

        Raises:
            InvalidInputError: the action has another form, or the actor is not named.
        """
        entry = AuditLog(
            action=action,
            resource_kind=resource_kind,
            resource_id=resource_id,
            actor_kind=actor_kind.value,
            actor_id=actor_id,
            outcome=outcome.value,
            ip_address=ip_address,
            request_id=request_id,
            details=dict(details or {}),
        )
        self._session.add(entry)
        await self._session.flush()
        return entry

    async def of_actor(self, actor_id: UUID, limit: int = 100) -> Sequence[AuditLog]:
        """Return what the user or key did."""
        return await self._newest(AuditLog.actor_id == actor_id, limit=limit)

    async def of_resource(
        self, kind: str, resource_id: str, limit: int = 100
    ) -> Sequence[AuditLog]:
        """Return what happened to the thing."""
        return await self._newest(
            AuditLog.resource_kind == kind, AuditLog.resource_id == resource_id, limit=limit
        )

    async def of_action(self, action: str, limit: int = 100) -> Sequence[AuditLog]:
        """Return each time that the action was done."""
        return await self._newest(AuditLog.action == action, limit=limit)

    async def of_request(self, request_id: str) -> Sequence[AuditLog]:
        """Return everything that one request did."""
        return await self._newest(AuditLog.request_id == request_id, limit=None)

    async def problems(self, since: datetime, limit: int = 100) -> Sequence[AuditLog]:
        """Return what was denied or failed since the time."""
        return await self._newest(
            AuditLog.outcome != AuditOutcome.SUCCESS.value,
            AuditLog.occurred_at >= since,
            limit=limit,
        )

    async def with_details(
        self, details: Mapping[str, Any], limit: int = 100
    ) -> Sequence[AuditLog]:
        """Return entries whose details contain these."""
        return await self._newest(AuditLog.details.contains(dict(details)), limit=limit)

    async def between(self, start: datetime, end: datetime) -> Sequence[AuditLog]:
        """Return everything from `start` to before `end`, as an export wants it."""
        return await self._newest(
            AuditLog.occurred_at >= start, AuditLog.occurred_at < end, limit=None
        )

    async def _newest(
        self, *conditions: ColumnElement[bool], limit: int | None
    ) -> Sequence[AuditLog]:
        found = await self._session.scalars(
            select(AuditLog).where(*conditions).order_by(AuditLog.occurred_at.desc()).limit(limit)
        )
        return found.all()
