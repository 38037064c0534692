"""What an analysis means for its item and its documents: pure decisions.

Invariant: a rejected file fails its item and is a result, never a retry; every other outcome ends
its item as done.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from samplemind.audio.outcome import Outcome
from samplemind.batches.claims import Claim, ClaimedItem
from samplemind.documents.analysis_result import AnalysisResult, AnalysisType, analysis_result_id
from samplemind.documents.audio_file import MOST_TAGS, AudioFile, FileStatus, audio_file_id
from samplemind.documents.batch_item import ItemError, ItemState
from samplemind.documents.text import store_path

if TYPE_CHECKING:
    # It loads scipy's filters, which a service that only submits batches never needs.
    from samplemind.audio.analysis import FileAnalysis
    from samplemind.audio.measure import Measurements

# These follow from more than the content, so the same content may pass another time.
_MAY_DIFFER_NEXT_TIME = frozenset(
    {
        # From the limits in the settings.
        Outcome.TOO_LARGE,
        Outcome.CHANNELS,
        Outcome.SAMPLE_RATE,
        Outcome.TOO_LONG,
        Outcome.DECOMPRESSION_BOMB,
        # From the machine's load and memory.
        Outcome.DECODER_CRASHED,
        Outcome.DECODER_TIMEOUT,
    }
)
_KEPT_APART = frozenset({"blocks", "embedding", "embedding_version"})

TRANSIENT = "transient"
WORKER_LOST = "worker_lost"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """How one claimed item ended, before it is stored.

    Attributes:
        seconds: that the analysis took; None where nothing was analysed.
        file: what was found, to be stored; None where nothing was.
        result: the measurements, to be stored; None where nothing was measured.
        audio_file_id: of the file's document, found now or before.
        superseded: version of the analyser whose result for the same content this one replaces.
    """

    item: ClaimedItem
    state: ItemState
    error: ItemError | None = None
    seconds: float | None = None
    file: AudioFile | None = None
    result: AnalysisResult | None = None
    audio_file_id: UUID | None = None
    superseded: str | None = None


def outcome_of_analysis(
    claim: Claim,
    item: ClaimedItem,
    analysis: "FileAnalysis",
    *,
    analyzer: tuple[str, str],
    observed_at: datetime,
    seconds: float,
    known: AudioFile | None = None,
) -> ItemOutcome:
    """Return what a fresh analysis means.

    Args:
        known: the file's document from before.
        analyzer: name and version.
        observed_at: when the look at the file began.
        seconds: that it took.
    """
    error = (
        ItemError(code=analysis.outcome.value, message=analysis.message)
        if analysis.outcome.rejected
        else None
    )
    state = ItemState.FAILED if error else ItemState.DONE
    if analysis.content_hash is None:
        # Nothing was read, so nothing is known that could replace what is stored.
        return ItemOutcome(item, state, error, seconds)
    result = _describe_result(claim, item, analysis, analyzer, observed_at, seconds)
    file = _describe_file(claim, item, analysis, analyzer[1], observed_at, result)
    superseded = None
    if known is not None and known.content_hash == analysis.content_hash:
        superseded = known.analyzer_version if known.analyzer_version != analyzer[1] else None
    return ItemOutcome(item, state, error, seconds, file, result, file.id, superseded)


def can_reuse(known: AudioFile | None, analyzer_version: str) -> bool:
    """Whether a stored analysis stands for the file, if its content is still the same."""
    return (
        known is not None
        and known.content_hash is not None
        and known.analyzer_version == analyzer_version
        and known.outcome is not None
        and known.outcome not in _MAY_DIFFER_NEXT_TIME
    )


def outcome_of_known(claim: Claim, item: ClaimedItem, known: AudioFile) -> ItemOutcome:
    """Return what a stored analysis of the same content means.

    One that this batch made itself, before its worker died, is this batch's work and not a skip.
    """
    if known.status is FileStatus.REJECTED:
        error = ItemError(code=known.outcome or known.status, message=known.message or "")
        return ItemOutcome(item, ItemState.FAILED, error, audio_file_id=known.id)
    state = ItemState.DONE if known.batch_id == claim.batch_id else ItemState.SKIPPED
    return ItemOutcome(item, state, audio_file_id=known.id)


def outcome_of_transient(item: ClaimedItem, reason: str) -> ItemOutcome:
    """Return the failure of a file that could not be read, however often it was tried."""
    message = f"The file could not be read in {item.attempts + 1} attempts: {reason}"
    return ItemOutcome(item, ItemState.FAILED, ItemError(code=TRANSIENT, message=message))


def outcome_of_error(item: ClaimedItem, error: Exception) -> ItemOutcome:
    """Return the failure of a file on which the analysis itself failed, alone too."""
    # The error's own text may hold anything; the log has it.
    message = (
        f"The analysis failed on this file ({type(error).__name__}); the worker's log says more "
        f"under item {item.id}."
    )
    return ItemOutcome(item, ItemState.FAILED, ItemError(code=ERROR, message=message))


def outcome_of_lost_worker(item: ClaimedItem) -> ItemOutcome:
    """Return the failure of a file whose analysis ended its worker each time it was begun."""
    message = (
        f"The worker ended {item.trials} times while it analysed this file alone; convert the file "
        "to WAV or FLAC."
    )
    return ItemOutcome(item, ItemState.FAILED, ItemError(code=WORKER_LOST, message=message))


def _describe_file(
    claim: Claim,
    item: ClaimedItem,
    analysis: "FileAnalysis",
    analyzer_version: str,
    observed_at: datetime,
    result: AnalysisResult | None,
) -> AudioFile:
    rejected = analysis.outcome.rejected
    name = analysis.name
    return AudioFile(
        id=audio_file_id(claim.owner_id, item.path),
        owner_id=claim.owner_id,
        path=store_path(item.path),
        content_hash=analysis.content_hash,
        size_bytes=analysis.size_bytes,
        observed_at=observed_at,
        title=name.title,
        pack=name.pack,
        status=FileStatus.REJECTED if rejected else FileStatus(analysis.outcome.value),
        outcome=analysis.outcome.value,
        message=analysis.message,
        tags=_tags(analysis),
        name_evidence={
            "tokens": list(name.tokens),
            "tags": list(name.tags),
            "tempo_bpm": name.tempo_bpm,
            "key": name.key,
            "kind": _plain(name.kind),
        },
        analysis_id=result.id if result else None,
        analyzer_version=analyzer_version,
        batch_id=claim.batch_id,
        created_at=observed_at,
        updated_at=observed_at,
        **_facts(analysis),
        **_headline(analysis.measurements),
    )


def _describe_result(
    claim: Claim,
    item: ClaimedItem,
    analysis: "FileAnalysis",
    analyzer: tuple[str, str],
    observed_at: datetime,
    seconds: float,
) -> AnalysisResult | None:
    if analysis.outcome.rejected or analysis.content_hash is None:
        return None
    name, version = analyzer
    file_id = audio_file_id(claim.owner_id, item.path)
    kind = AnalysisType.FEATURES
    facts = {} if analysis.facts is None else _plain(dataclasses.asdict(analysis.facts))
    return AnalysisResult(
        id=analysis_result_id(file_id, analysis.content_hash, kind, name, version),
        audio_file_id=file_id,
        content_hash=analysis.content_hash,
        analysis_type=kind,
        analyzer_name=name,
        analyzer_version=version,
        measurements=facts | _measurements(analysis.measurements),
        seconds=seconds,
        created_at=observed_at,
        **_vectors(analysis.measurements),
    )


def _tags(analysis: "FileAnalysis") -> list[str]:
    kind = [analysis.measurements.kind.value] if analysis.measurements else []
    return list(dict.fromkeys([*analysis.name.tags, *kind]))[:MOST_TAGS]


def _facts(analysis: "FileAnalysis") -> dict[str, Any]:
    facts = analysis.facts
    if facts is None:
        return {}
    return {
        "format": facts.format,
        "codec": facts.codec,
        "duration_s": facts.duration_s,
        "sample_rate_hz": facts.sample_rate_hz,
        "channels": facts.channels,
        "bit_depth": facts.bit_depth,
        "peak_dbfs": facts.peak_dbfs,
        "flags": list(facts.flags),
    }


def _headline(measured: "Measurements | None") -> dict[str, Any]:
    """Return the measurements by which files are listed and filtered."""
    if measured is None:
        return {}
    return {
        "kind": measured.kind.value,
        "tempo_bpm": measured.tempo_bpm,
        "tempo_confidence": measured.tempo_confidence,
        "tempo_alternative_bpm": measured.tempo_alternative_bpm,
        "key": measured.key,
        "key_confidence": measured.key_confidence,
        # Without the key that it is relative to it would mean nothing.
        "key_relative": measured.key_relative if measured.key else None,
        "root_note": measured.root_note,
        "loudness_lufs": measured.loudness_lufs,
    }


def _measurements(measured: "Measurements | None") -> dict[str, Any]:
    if measured is None:
        return {}
    return {
        field.name: _plain(getattr(measured, field.name))
        for field in dataclasses.fields(measured)
        if field.name not in _KEPT_APART
    }


def _vectors(measured: "Measurements | None") -> dict[str, Any]:
    if measured is None:
        return {}
    return {
        "blocks": {name: block.astype("<f2").tobytes() for name, block in measured.blocks.items()},
        "embedding": measured.embedding.astype("<f4").tobytes(),
        "embedding_version": measured.embedding_version,
    }


def _plain(value: Any) -> Any:
    """Return numbers, texts, lists and dicts only, as BSON holds them."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    # numpy's arrays and scalars, without loading numpy to ask for them.
    return value.tolist() if hasattr(value, "tolist") else value
