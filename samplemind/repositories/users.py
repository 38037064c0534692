"""Users: finding them, signing them in, counting what they do."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import ConflictError, InvalidInputError, NotFoundError
from samplemind.ids import new_id
from samplemind.models.user import User
from samplemind.security.passwords import hash_password, needs_rehash, verify_password
from samplemind.security.permissions import Role


class UserRepository:
    """Every query over `users`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self,
        email: str,
        *,
        password: SecretStr | None = None,
        display_name: str | None = None,
        roles: Sequence[Role] = (Role.MEMBER,),
    ) -> User:
        """Add a user; without a password the user cannot sign in with one.

        Raises:
            ConflictError: the address is taken, in whatever case.
            InvalidInputError: the address, the password or the roles are refused.
        """
        hashed = None if password is None else await asyncio.to_thread(hash_password, password)
        user = await self._insert(
            email,
            password_hash=hashed,
            display_name=display_name,
            roles=[role.value for role in roles],
        )
        if user is None:
            message = "there is a user with this address already"
            raise ConflictError(message)
        return user

    async def get(self, user_id: UUID) -> User:
        """Return the user.

        Raises:
            NotFoundError: there is none with this id.
        """
        user = await self._session.get(User, user_id)
        if user is None:
            message = f"there is no user {user_id}"
            raise NotFoundError(message)
        return user

    async def get_by_email(self, email: str) -> User | None:
        """Return the user with the address, in whatever case, or none."""
        found = await self._session.scalars(
            select(User).where(func.lower(User.email) == func.lower(email.strip()))
        )
        return found.one_or_none()

    async def get_or_create_owner(self, email: str) -> User:
        """Return the user with the address, made without a password where there was none.

        Any number of callers at once get the same user.

        Raises:
            InvalidInputError: it is no address.
        """
        found = await self.get_by_email(email) or await self._insert(email)
        # Nothing was inserted where another transaction was first; it has committed by now.
        found = found or await self.get_by_email(email)
        if found is None:
            message = "the user was deleted at the same moment"
            raise ConflictError(message)
        return found

    async def authenticate(self, email: str, password: SecretStr) -> User | None:
        """Return the active user whose password this is, or none.

        A hash made with older parameters is replaced on the way.
        """
        user = await self.get_by_email(email)
        encoded = user.password_hash if user else None
        fits = await asyncio.to_thread(verify_password, password, encoded)
        if user is None or encoded is None or not fits or not user.is_active:
            return None
        if needs_rehash(encoded):
            user.password_hash = await asyncio.to_thread(hash_password, password)
        await self.record_usage(user.id)
        return user

    async def set_password(self, user: User, password: SecretStr) -> None:
        """Replace the password.

        Raises:
            InvalidInputError: it is too short or too long.
        """
        user.password_hash = await asyncio.to_thread(hash_password, password)
        await self._session.flush()

    async def record_usage(
        self, user_id: UUID, *, files: int = 0, size_bytes: int = 0, searches: int = 0
    ) -> None:
        """Add to the user's counters; concurrent calls add up."""
        await self._session.execute(
            update(User)
            .where(User.id == user_id)
            .values(
                files_ingested=User.files_ingested + files,
                bytes_ingested=User.bytes_ingested + size_bytes,
                searches_made=User.searches_made + searches,
                last_seen_at=func.now(),
                updated_at=User.updated_at,  # a counter is no change of the account
            )
            .execution_options(synchronize_session=False)
        )

    async def with_role(self, role: Role, limit: int = 100) -> Sequence[User]:
        """Return users who have the role, oldest first."""
        found = await self._session.scalars(
            select(User).where(User.roles.contains([role.value])).order_by(User.id).limit(limit)
        )
        return found.all()

    async def search(self, text: str, limit: int = 20) -> Sequence[User]:
        """Return users whose address or name contains the text, in whatever case."""
        found = await self._session.scalars(
            select(User)
            .where(
                User.email.icontains(text, autoescape=True)
                | User.display_name.icontains(text, autoescape=True)
            )
            .order_by(User.email)
            .limit(limit)
        )
        return found.all()

    async def inactive_since(self, before: datetime, limit: int = 100) -> Sequence[User]:
        """Return accounts that were switched off before the time, the longest first."""
        found = await self._session.scalars(
            select(User)
            .where(~User.is_active, User.updated_at < before)
            .order_by(User.updated_at)
            .limit(limit)
        )
        return found.all()

    async def _insert(self, email: str, **values: object) -> User | None:
        """Insert a user, or return none where the address is taken."""
        address = email.strip()
        if "@" not in address:
            message = "an e-mail address is needed"
            raise InvalidInputError(message)
        inserted = await self._session.scalars(
            insert(User)
            .values(id=new_id(), email=address, **values)
            .on_conflict_do_nothing()
            .returning(User)
        )
        return inserted.one_or_none()
