"""OAuth accounts: linking them, and keeping their tokens encrypted.

Invariant: tokens pass through here in clear text as `SecretStr` only, and reach the database
closed by the cipher.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import ConflictError
from samplemind.ids import new_id
from samplemind.models.oauth_account import OAuthAccount
from samplemind.security.cipher import TokenCipher


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    """What a provider gave for an account; times are UTC-aware."""

    access: SecretStr
    refresh: SecretStr | None = None
    expires_at: datetime | None = None
    scopes: Collection[str] = ()


class OAuthAccountRepository:
    """Every query over `oauth_accounts`."""

    def __init__(self, session: AsyncSession, cipher: TokenCipher) -> None:
        self._session = session
        self._cipher = cipher

    async def link(
        self,
        user_id: UUID,
        provider: str,
        provider_account_id: str,
        tokens: OAuthTokens,
        *,
        provider_email: str | None = None,
    ) -> OAuthAccount:
        """Link the provider's account to the user, or renew the tokens of the link there is.

        Raises:
            ConflictError: it is another user's, or the user has another one with this provider.
            InvalidInputError: the provider's name is refused.
        """
        statement = insert(OAuthAccount).values(
            id=new_id(),
            user_id=user_id,
            provider=provider,
            provider_account_id=provider_account_id,
            provider_email=provider_email,
            access_token_encrypted=self._cipher.encrypt(tokens.access),
            refresh_token_encrypted=tokens.refresh and self._cipher.encrypt(tokens.refresh),
            token_key_id=self._cipher.key_id,
            token_expires_at=tokens.expires_at,
            scopes=sorted(tokens.scopes),
        )
        new = statement.excluded
        # Many providers send a refresh token with the first sign-in only: the one there is stays,
        # and with it the name of the key that closed it, for a rotation to find.
        keeps_refresh = new.refresh_token_encrypted.is_(None) & (
            OAuthAccount.refresh_token_encrypted.is_not(None)
        )
        linked = await self._session.scalars(
            statement.on_conflict_do_update(
                index_elements=[OAuthAccount.provider, OAuthAccount.provider_account_id],
                set_={
                    "provider_email": new.provider_email,
                    "access_token_encrypted": new.access_token_encrypted,
                    "refresh_token_encrypted": func.coalesce(
                        new.refresh_token_encrypted, OAuthAccount.refresh_token_encrypted
                    ),
                    "token_key_id": case(
                        (keeps_refresh, OAuthAccount.token_key_id), else_=new.token_key_id
                    ),
                    "token_expires_at": new.token_expires_at,
                    "scopes": new.scopes,
                    "updated_at": func.now(),
                },
                where=OAuthAccount.user_id == new.user_id,
            ).returning(OAuthAccount),
            execution_options={"populate_existing": True},
        )
        account = linked.one_or_none()
        if account is None:
            message = f"this {provider} account is linked to another user"
            raise ConflictError(message)
        return account

    async def get(self, provider: str, provider_account_id: str) -> OAuthAccount | None:
        """Return the link of the provider's account, or none."""
        found = await self._session.scalars(
            select(OAuthAccount).where(
                OAuthAccount.provider == provider,
                OAuthAccount.provider_account_id == provider_account_id,
            )
        )
        return found.one_or_none()

    def open_tokens(self, account: OAuthAccount) -> OAuthTokens:
        """Return the account's tokens in clear.

        Raises:
            SecretError: none of the configured keys opens them.
        """
        refresh = account.refresh_token_encrypted
        return OAuthTokens(
            access=self._cipher.decrypt(account.access_token_encrypted),
            refresh=None if refresh is None else self._cipher.decrypt(refresh),
            expires_at=account.token_expires_at,
            scopes=tuple(account.scopes),
        )

    async def of_user(self, user_id: UUID) -> Sequence[OAuthAccount]:
        """Return the user's links, by provider."""
        found = await self._session.scalars(
            select(OAuthAccount)
            .where(OAuthAccount.user_id == user_id)
            .order_by(OAuthAccount.provider)
        )
        return found.all()

    async def with_email(self, email: str) -> Sequence[OAuthAccount]:
        """Return the links for which a provider reported the address, in whatever case."""
        found = await self._session.scalars(
            select(OAuthAccount).where(
                func.lower(OAuthAccount.provider_email) == func.lower(email.strip())
            )
        )
        return found.all()

    async def refreshable(self, before: datetime, limit: int = 100) -> Sequence[OAuthAccount]:
        """Return links whose access token expires before the time and can be renewed."""
        found = await self._session.scalars(
            select(OAuthAccount)
            .where(
                OAuthAccount.refresh_token_encrypted.is_not(None),
                OAuthAccount.token_expires_at < before,
            )
            .order_by(OAuthAccount.token_expires_at)
            .limit(limit)
        )
        return found.all()

    async def rotate_keys(self, limit: int = 500) -> int:
        """Close tokens of older keys with the newest one, and return for how many accounts.

        Called until it returns 0; then no token needs the older keys any more. Several callers
        at once share the work.
        """
        found = await self._session.scalars(
            select(OAuthAccount)
            .where(OAuthAccount.token_key_id.in_(self._cipher.previous_key_ids))
            .order_by(OAuthAccount.token_key_id, OAuthAccount.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        accounts = found.all()
        for account in accounts:
            account.access_token_encrypted = self._cipher.rotate(account.access_token_encrypted)
            if account.refresh_token_encrypted is not None:
                account.refresh_token_encrypted = self._cipher.rotate(
                    account.refresh_token_encrypted
                )
            account.token_key_id = self._cipher.key_id
        await self._session.flush()
        return len(accounts)
