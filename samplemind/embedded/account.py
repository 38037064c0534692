"""As whom PostgreSQL runs when the platform runs as root, and what that account can reach.

PostgreSQL refuses to run as root, with reason: SQL of a superuser can run programs. Reach is
judged by mode bits; where an access list grants more, another directory is chosen in vain, which
is harmless.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from samplemind.errors import ServerStartError

_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """An unprivileged account of the system."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return whom to run as in place of root; none when this process is not root.

    Raises:
        ServerStartError: this is root and the system knows no unprivileged account.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    message = (
        "PostgreSQL refuses to run as root and there is no account "
        f"{' or '.join(_CANDIDATES)}: run as an ordinary user, or set SAMPLEMIND_POSTGRES_URL"
    )
    raise ServerStartError(message)


def can_traverse(path: Path, account: Account) -> bool:
    """Tell whether the account may pass through the directory and all those above it."""
    return all(_granted(place, account, stat.S_IXUSR) for place in (path, *path.parents))


def can_run(program: Path, account: Account) -> bool:
    """Tell whether the account may reach, read and run the program."""
    return can_traverse(program.parent, account) and all(
        _granted(program, account, bit) for bit in (stat.S_IRUSR, stat.S_IXUSR)
    )


def _granted(path: Path, account: Account, owner_bit: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & owner_bit)
    if status.st_gid == account.gid:
        return bool(status.st_mode & (owner_bit >> 3))
    return bool(status.st_mode & (owner_bit >> 6))
