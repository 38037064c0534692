"""Roles and what each allows.

Invariant: the table below is the only place that grants anything; a user's permissions are the
union over the user's roles. The database's check on `users.roles` lists the same roles.
"""

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """What a user is in the library."""

    MEMBER = "member"
    CURATOR = "curator"
    OPERATOR = "operator"
    ADMIN = "admin"


class Permission(StrEnum):
    """One thing that may be allowed; also the scopes of API keys and sessions."""

    SAMPLES_READ = "samples:read"
    SAMPLES_WRITE = "samples:write"
    COLLECTIONS_WRITE = "collections:write"
    COLLECTIONS_CURATE = "collections:curate"
    JOBS_READ = "jobs:read"
    JOBS_CONTROL = "jobs:control"
    USERS_MANAGE = "users:manage"
    AUDIT_READ = "audit:read"


_MEMBER = frozenset(
    {Permission.SAMPLES_READ, Permission.SAMPLES_WRITE, Permission.COLLECTIONS_WRITE}
)
_GRANTS: dict[Role, frozenset[Permission]] = {
    Role.MEMBER: _MEMBER,
    Role.CURATOR: _MEMBER | {Permission.COLLECTIONS_CURATE},
    Role.OPERATOR: frozenset(
        {Permission.SAMPLES_READ, Permission.JOBS_READ, Permission.JOBS_CONTROL}
    ),
    Role.ADMIN: frozenset(Permission),
}


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """Return everything that at least one of the roles allows."""
    return frozenset[Permission]().union(*(_GRANTS[role] for role in roles))
