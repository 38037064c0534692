"""API keys: issuing, checking and revoking them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.api_key import ApiKey
from samplemind.models.user import User
from samplemind.repositories.rows import changed_rows
from samplemind.security.permissions import Permission
from samplemind.security.tokens import API_KEY_START, issue_token, token_digest


@dataclass(frozen=True, slots=True)
class IssuedApiKey:
    """A fresh key; this is the only time that `key` is known."""

    record: ApiKey
    key: SecretStr


class ApiKeyRepository:
    """Every query over `api_keys`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def issue(
        self,
        user_id: UUID,
        name: str,
        scopes: Collection[Permission],
        *,
        expires_at: datetime | None = None,
        rate_limit_per_minute: int | None = None,
        rate_limit_per_day: int | None = None,
    ) -> IssuedApiKey:
        """Make a key for the user; it may do what its scopes and the user's roles both allow.

        Raises:
            ConflictError: there is no such user.
            InvalidInputError: the name, a limit or the expiry is refused.
        """
        issued = issue_token(API_KEY_START)
        record = ApiKey(
            user_id=user_id,
            name=name,
            prefix=issued.prefix,
            key_hash=issued.digest,
            scopes=sorted(scope.value for scope in set(scopes)),
            expires_at=expires_at,
            rate_limit_per_minute=rate_limit_per_minute,
            rate_limit_per_day=rate_limit_per_day,
        )
        self._session.add(record)
        await self._session.flush()
        return IssuedApiKey(record, issued.token)

    async def authenticate(self, key: SecretStr) -> ApiKey | None:
        """Return the live key of an active user and count its use, or none."""
        active = select(User.id).where(User.id == ApiKey.user_id, User.is_active).exists()
        found = await self._session.scalars(
            update(ApiKey)
            .where(
                ApiKey.key_hash == token_digest(key),
                ApiKey.revoked_at.is_(None),
                or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
                active,
            )
            .values(times_used=ApiKey.times_used + 1, last_used_at=func.now())
            .returning(ApiKey)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        return found.one_or_none()

    async def revoke(self, key_id: UUID) -> bool:
        """End the key; false where it is unknown or was revoked before."""
        return bool(
            await changed_rows(
                self._session,
                update(ApiKey)
                .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
                .values(revoked_at=func.now()),
            )
        )

    async def of_user(self, user_id: UUID) -> Sequence[ApiKey]:
        """Return the user's keys, newest first."""
        found = await self._session.scalars(
            select(ApiKey).where(ApiKey.user_id == user_id).order_by(ApiKey.created_at.desc())
        )
        return found.all()

    async def with_prefix(self, prefix: str) -> Sequence[ApiKey]:
        """Return the keys that begin like this, as a log or a leak shows it."""
        found = await self._session.scalars(select(ApiKey).where(ApiKey.prefix == prefix))
        return found.all()

    async def with_scope(self, scope: Permission) -> Sequence[ApiKey]:
        """Return the live keys that hold the scope."""
        found = await self._session.scalars(
            select(ApiKey).where(ApiKey.scopes.contains([scope.value]), ApiKey.revoked_at.is_(None))
        )
        return found.all()

    async def expiring(self, before: datetime, limit: int = 100) -> Sequence[ApiKey]:
        """Return keys that are not revoked and expire before the time, soonest first."""
        found = await self._session.scalars(
            select(ApiKey)
            .where(ApiKey.revoked_at.is_(None), ApiKey.expires_at < before)
            .order_by(ApiKey.expires_at)
            .limit(limit)
        )
        return found.all()

    async def delete_revoked(self, before: datetime) -> int:
        """Delete the keys that were revoked before the time, and return how many."""
        return await changed_rows(self._session, delete(ApiKey).where(ApiKey.revoked_at < before))
