"""The verdict of a verification: what is asked at each level, and where the answer is kept.

Invariant: whatever was found is in the backup's history before anybody is told; an incremental is
judged together with all that it stands on, as it is worth no more.
"""

import getpass
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from samplemind.backup.catalog import Catalog, HistoryEvent
from samplemind.backup.chains import find_chain
from samplemind.backup.control import Control
from samplemind.backup.manifest import Manifest
from samplemind.backup.postgres_tools import Server
from samplemind.backup.proof import verify_decoded, verify_restored
from samplemind.backup.recovery import unpack
from samplemind.backup.verification import Level, verify_checksums, verify_sizes
from samplemind.errors import BackupError, InvalidInputError

Source = Callable[[], Server]


@dataclass(frozen=True)
class Verification:
    """What one verification or drill of a backup found."""

    id: str
    level: int
    ok: bool
    problems: tuple[str, ...]
    seconds: float
    evidence: dict[str, Any] = field(default_factory=dict)


def verify_chain(
    catalog: Catalog, manifest: Manifest, level: Level, control: Control, source: Source
) -> Verification:
    """Verify a backup, where what it stands on is whole, and record what was found.

    Args:
        catalog: where the backup is, and its history.
        manifest: the backup's.
        level: below that of a drill.
        control: cancellation and progress.
        source: gives the server that was backed up, whose settings a scratch server takes.

    Raises:
        InvalidInputError: the level is a drill's.
        SecretError: the key that it needs is missing.
    """
    began = time.monotonic()
    below = _problems_below(catalog, manifest, level, control, source)
    problems = below or _problems(catalog, manifest, level, control, source)
    return _judged(catalog, manifest, level, began, problems)


def record(catalog: Catalog, found: Verification) -> Verification:
    """Keep what was found in the backup's history, and return it."""
    catalog.record(
        HistoryEvent.model_validate(
            {
                "backup_id": found.id,
                "level": int(found.level),
                "at": datetime.now(UTC),
                "ok": found.ok,
                "problems": found.problems,
                "seconds": found.seconds,
                "actor": actor(),
                "evidence": found.evidence,
            }
        )
    )
    return found


def actor() -> str:
    """Return who runs this process, for the manifest."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        name = f"uid {os.geteuid()}"
    return f"{name}@{os.uname().nodename}"


def _problems_below(
    catalog: Catalog, manifest: Manifest, level: Level, control: Control, source: Source
) -> list[str]:
    """Verify what an incremental stands on, each for itself; return what is wrong there."""
    if manifest.parent is None:
        return []
    try:
        chain = find_chain(manifest.id, catalog.entries())
    except BackupError as error:
        return [str(error)]
    # A restore asks the whole chain together; before it, every byte of it is compared.
    below = Level(min(level, Level.CHECKSUMS if level is Level.RESTORED else Level.DECODED))
    problems = []
    for parent in chain[:-1]:
        began = time.monotonic()
        found = _judged(
            catalog, parent, below, began, _problems(catalog, parent, below, control, source)
        )
        problems += [f"it stands on {parent.id}: {problem}" for problem in found.problems]
    return problems


def _judged(
    catalog: Catalog, manifest: Manifest, level: Level, began: float, problems: list[str]
) -> Verification:
    return record(
        catalog,
        Verification(
            id=manifest.id,
            level=level,
            ok=not problems,
            problems=tuple(problems),
            seconds=round(time.monotonic() - began, 3),
        ),
    )


def _problems(
    catalog: Catalog, manifest: Manifest, level: Level, control: Control, source: Source
) -> list[str]:
    store = catalog.store
    if level is Level.SIZES:
        return verify_sizes(store, manifest)
    control.begin("checksums", manifest.stored_bytes)
    if level is Level.CHECKSUMS:
        return verify_checksums(store, manifest, progress=control.passed)
    key = catalog.data_key(manifest)
    if level is Level.DECODED:
        return verify_decoded(store, manifest, key, control)
    if level is Level.RESTORED:
        problems = verify_checksums(store, manifest, progress=control.passed)
        return problems or verify_restored(
            store,
            manifest,
            key,
            control,
            source=source(),
            unpack=lambda directory: unpack(
                catalog, find_chain(manifest.id, catalog.entries()), directory, control
            ),
        )
    message = "level 4 is a drill: `samplemind backup drill`"
    raise InvalidInputError(message)
