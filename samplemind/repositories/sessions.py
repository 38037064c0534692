"""User sessions: signing in, staying signed in, signing out."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.user import User
from samplemind.models.user_session import UserSession
from samplemind.repositories.rows import changed_rows
from samplemind.security.tokens import issue_token, token_digest

# Each request would otherwise write a row.
_SEEN_RESOLUTION = timedelta(minutes=1)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class IssuedSession:
    """A fresh session; this is the only time that `token` is known."""

    record: UserSession
    token: SecretStr


class UserSessionRepository:
    """Every query over `user_sessions`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def start(
        self,
        user_id: UUID,
        ttl: timedelta,
        *,
        device_name: str | None = None,
        user_agent: str | None = None,
        ip_address: IpAddress | None = None,
    ) -> IssuedSession:
        """Sign the user in on a device for `ttl`.

        Raises:
            ConflictError: there is no such user.
            InvalidInputError: the time is not positive.
        """
        issued = issue_token()
        record = UserSession(
            user_id=user_id,
            token_hash=issued.digest,
            device_name=device_name,
            user_agent=user_agent,
            ip_address=ip_address,
            expires_at=datetime.now(UTC) + ttl,
        )
        self._session.add(record)
        await self._session.flush()
        return IssuedSession(record, issued.token)

    async def authenticate(self, token: SecretStr) -> UserSession | None:
        """Return the live session of an active user, or none; notes to the minute when seen."""
        found = await self._session.scalars(
            select(UserSession)
            .join(User)
            .where(UserSession.token_hash == token_digest(token), _live(), User.is_active)
        )
        record = found.one_or_none()
        now = datetime.now(UTC)
        if record and (record.last_seen_at is None or now - record.last_seen_at > _SEEN_RESOLUTION):
            record.last_seen_at = now
            await self._session.flush()
        return record

    async def revoke(self, session_id: UUID, reason: str) -> bool:
        """Sign one device out; false where the session is unknown or was revoked before."""
        return bool(
            await changed_rows(
                self._session,
                update(UserSession)
                .where(UserSession.id == session_id, UserSession.revoked_at.is_(None))
                .values(revoked_at=func.now(), revoked_reason=reason),
            )
        )

    async def revoke_all(self, user_id: UUID, reason: str, *, but: UUID | None = None) -> int:
        """Sign the user out everywhere, or everywhere but in one session; return how many."""
        statement = (
            update(UserSession)
            .where(UserSession.user_id == user_id, _live())
            .values(revoked_at=func.now(), revoked_reason=reason)
        )
        if but is not None:
            statement = statement.where(UserSession.id != but)
        return await changed_rows(self._session, statement)

    async def live_of_user(self, user_id: UUID) -> Sequence[UserSession]:
        """Return where the user is signed in now, the longest-lasting first."""
        found = await self._session.scalars(
            select(UserSession)
            .where(UserSession.user_id == user_id, _live())
            .order_by(UserSession.expires_at.desc())
        )
        return found.all()

    async def of_user(self, user_id: UUID, limit: int = 50) -> Sequence[UserSession]:
        """Return the user's sign-ins, newest first, ended ones too."""
        found = await self._session.scalars(
            select(UserSession)
            .where(UserSession.user_id == user_id)
            .order_by(UserSession.created_at.desc())
            .limit(limit)
        )
        return found.all()

    async def from_address(self, address: IpAddress, since: datetime) -> Sequence[UserSession]:
        """Return the sign-ins from the address since the time, newest first."""
        found = await self._session.scalars(
            select(UserSession)
            .where(UserSession.ip_address == address, UserSession.created_at >= since)
            .order_by(UserSession.created_at.desc())
        )
        return found.all()

    async def delete_ended(self, before: datetime) -> int:
        """Delete what expired or was revoked before the time, and return how many."""
        return await changed_rows(
            self._session,
            delete(UserSession).where(
                or_(UserSession.expires_at < before, UserSession.revoked_at < before)
            ),
        )


def _live() -> ColumnElement[bool]:
    return UserSession.revoked_at.is_(None) & (UserSession.expires_at > func.now())
