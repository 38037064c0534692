"""From a path to everything that is known of the file: the one way in for the rest of the platform.

`analyze_file` never raises for what a file is or holds; that becomes an outcome. It raises a
`TransientError` where the machine, and not the file, is at fault. Nothing here stores anything but
in the `Memory` that a caller lends.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samplemind.audio import child, transfer
from samplemind.audio.examination import Examination, SoundFacts, examine
from samplemind.audio.filename import NameEvidence, printable_path, read_name
from samplemind.audio.guards import GuardedFile, open_guarded
from samplemind.audio.isolation import open_child
from samplemind.audio.limits import DEFAULT_LIMITS, AudioLimits
from samplemind.audio.measure import Measurements
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.audio.ties import break_ties
from samplemind.errors import DecoderDiedError, DecoderTimeoutError

ANALYZER_NAME = "samplemind"
ANALYZER_VERSION = "1.0.1"


@dataclass(frozen=True, slots=True)
class FileAnalysis:
    """What became of one file.

    Attributes:
        path: as it was given.
        outcome: how the analysis ended.
        message: one sentence for the file's owner.
        name: what the file's name says.
        content_hash: SHA-256 of its bytes; None if it could not be opened.
        size_bytes: None if it could not be opened.
        facts: of the sound; None if it was rejected.
        measurements: set if the outcome is a measured one.
    """

    path: Path
    outcome: Outcome
    message: str
    name: NameEvidence
    content_hash: str | None = None
    size_bytes: int | None = None
    facts: SoundFacts | None = None
    measurements: Measurements | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it flat, as JSON holds it; what is not known is None."""
        facts = (
            dict.fromkeys(field.name for field in dataclasses.fields(SoundFacts))
            if self.facts is None
            else dataclasses.asdict(self.facts) | {"flags": list(self.facts.flags)}
        )
        measured = (
            dict.fromkeys(field.name for field in dataclasses.fields(Measurements))
            if self.measurements is None
            else self.measurements.as_dict()
        )
        return {
            "path": printable_path(self.path),
            "outcome": self.outcome.value,
            "message": self.message,
            "title": self.name.title,
            "pack": self.name.pack,
            "tags": list(self.name.tags),
            "named": {
                "tempo_bpm": self.name.tempo_bpm,
                "key": self.name.key,
                "kind": None if self.name.kind is None else self.name.kind.value,
            },
            "content_hash": self.content_hash,
            "size_bytes": self.size_bytes,
            **facts,
            **measured,
            "analyzer_name": ANALYZER_NAME,
            "analyzer_version": ANALYZER_VERSION,
        }


@dataclass(frozen=True, slots=True)
class Memory:
    """What this version of the analysis found in contents before, under the same limits.

    Attributes:
        recall: returns what was found in the content of this SHA-256, or none.
        remember: keeps what was found.
    """

    recall: Callable[[str], Examination | None]
    remember: Callable[[str, Examination], None]


def analyze_file(
    path: Path,
    *,
    root: Path | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
    isolated: bool = False,
    memory: Memory | None = None,
) -> FileAnalysis:
    """Analyse one untrusted file.

    Args:
        path: the file; its name is evidence and is trusted for nothing else.
        root: the folder outside of which nothing may be read; None sets no such bound.
        limits: bounds on the file and its sound.
        isolated: examine the file in a guarded child, as after a file that killed a worker. It
            costs about half a second, and the file can take nothing with it.
        memory: a content that it knows is hashed and not decoded; what the file's name says is
            applied all the same.

    Returns:
        The analysis; its outcome says how far it got.

    Raises:
        AudioReadError: the file system failed, the file changed while it was read, or (unless
            `isolated`) a decoder got no processor time. Trying again may help.
    """
    name = read_name(path, root=root)
    content_hash: str | None = None
    size_bytes: int | None = None
    try:
        with open_guarded(path, root=root, limits=limits) as file:
            size_bytes, content_hash = file.size_bytes, file.sha256()
            try:
                known = memory.recall(content_hash) if memory is not None else None
                found = known or _examine_twice(file, limits, isolated=isolated)
            finally:
                file.check_unchanged()
    except AudioRejectedError as refusal:
        return FileAnalysis(path, refusal.outcome, str(refusal), name, content_hash, size_bytes)
    if memory is not None and known is None:
        memory.remember(content_hash, found)
    measured = found.measurements
    return FileAnalysis(
        path,
        found.outcome,
        found.outcome.message,
        name,
        content_hash,
        size_bytes,
        found.facts,
        None if measured is None else break_ties(measured, name.hints),
    )


def _examine_twice(file: GuardedFile, limits: AudioLimits, *, isolated: bool) -> Examination:
    """Examine a file, once more if a decoder died: the machine may have killed it for memory.

    A second death, or a timeout of what was isolated as a last resort, is held against the file.
    """
    run = _examine_isolated if isolated else examine
    try:
        try:
            return run(file, limits)
        except DecoderDiedError:
            return run(file, limits)
    except DecoderDiedError as error:
        raise AudioRejectedError(Outcome.DECODER_CRASHED) from error
    except DecoderTimeoutError as error:
        if not isolated:
            raise
        raise AudioRejectedError(Outcome.DECODER_TIMEOUT) from error


def _examine_isolated(file: GuardedFile, limits: AudioLimits) -> Examination:
    task = {
        "do": "examine",
        "limits": dataclasses.asdict(limits),
        "size_bytes": file.size_bytes,
    }
    with open_child(task, file, limits) as channel:
        kind, payload = channel.receive()
    if kind != child.RESULT:
        raise DecoderDiedError("The examination ended without a result.")
    try:
        return transfer.load(payload)
    except ValueError as error:
        raise DecoderDiedError("The examination ended without a result.") from error
