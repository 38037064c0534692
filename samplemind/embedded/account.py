"""As whom PostgreSQL runs when the platform runs as root, what that account reaches and writes.

Invariant: root never writes, or changes an owner, inside a directory that the account owns: the
account could put a link there that leads root to any file. The account writes there itself.

PostgreSQL refuses to run as root, with reason: SQL of a superuser can run programs. Reach is
judged by mode bits; where an access list grants more, another directory is chosen in vain, which
is harmless.
"""

import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from samplemind.errors import ServerStartError

_CANDIDATES = ("postgres", "nobody")
# What stood under either name, a link for instance, is replaced and never followed.
_REPLACE = 'umask 077 && rm -f -- "$1.new" && cat >"$1.new" && mv -f -- "$1.new" "$1"'
_APPEND = 'cat >>"$1"'


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


def replace_as(account: Account | None, path: Path, text: str) -> None:
    """Replace a file with the rights of the account (none: of this process), mode 0600.

    Raises:
        ServerStartError: it cannot be written.
    """
    _write_as(account, _REPLACE, path, text)


def append_as(account: Account | None, path: Path, text: str) -> None:
    """Append to a file with the rights of the account (none: of this process).

    Raises:
        ServerStartError: it cannot be written.
    """
    _write_as(account, _APPEND, path, text)


def _write_as(account: Account | None, script: str, path: Path, text: str) -> None:
    try:
        result = subprocess.run(
            ["/bin/sh", "-c", script, "sh", str(path)],
            input=text,
            cwd="/",
            capture_output=True,
            text=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
    except (OSError, subprocess.SubprocessError) as error:
        message = f"{path} cannot be written: {error}"
        raise ServerStartError(message) from error
    if result.returncode != 0:
        message = f"{path} cannot be written: {result.stderr.strip()}"
        raise ServerStartError(message)
