"""The loop that works through one chunk: decide, analyse, store, until done or told to stop.

It is synchronous, because an analysis is processor time that a soft time limit must be able to
interrupt; what it awaits goes through `run`, to the loop that owns the connections.

Invariant: whatever ends the loop, each item is ended, given back, or still under a claim that
ends by itself. Nothing is analysed whose content was analysed before by the same version.
"""

import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from samplemind.audio.outcome import AudioRejectedError
from samplemind.batches.claims import Claim, ClaimedItem, begin_trial, claim, extend, release
from samplemind.batches.outcomes import (
    ItemOutcome,
    can_reuse,
    outcome_of_analysis,
    outcome_of_known,
    outcome_of_lost_worker,
    outcome_of_transient,
)
from samplemind.batches.recording import record
from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile, audio_file_id
from samplemind.documents.batch_item import ItemState
from samplemind.errors import TransientError
from samplemind.log import get_logger
from samplemind.repositories.audio_files import AudioFileRepository

if TYPE_CHECKING:
    from samplemind.audio.analysis import FileAnalysis

T = TypeVar("T")

FLUSH_ITEMS = 16
FLUSH_S = 1.0

_log = get_logger(__name__)


class Run(Protocol):
    """Runs a coroutine on the loop that owns the connections, and returns its result."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Analyzer:
    """What looks into files.

    Attributes:
        name: of the analyser.
        version: two versions' results stand side by side.
        analyze: takes the path and whether to work in a process of its own; raises
            `TransientError` only.
        hash_file: returns the SHA-256 of a file in hex; raises `AudioRejectedError` or
            `TransientError`.
    """

    name: str
    version: str
    analyze: "Callable[[Path, bool], FileAnalysis]"
    hash_file: Callable[[Path], str]


@dataclass(slots=True)
class ChunkReport:
    """What became of a chunk's items in this run.

    Attributes:
        claimed: items that this run took.
        ended: items that it ended, by state; what it lost to another worker isn't counted.
        again: items given back because the machine failed them; the job should be retried.
        stopped: the batch was cancelled, or another worker took the items.
    """

    claimed: int = 0
    ended: dict[ItemState, int] = field(default_factory=dict)
    again: int = 0
    stopped: bool = False


def analyze_chunk(
    connections: Connections,
    batch_id: UUID,
    first: int,
    last: int,
    *,
    job_id: str,
    run: Run,
    analyzer: Analyzer,
    queue_drain: Callable[[], None],
) -> ChunkReport:
    """Work through the items from `first` to `last` that nobody else works on.

    Args:
        job_id: the message's id, the same at each delivery.
        queue_drain: called when files wait for the index and no drain is on its way.

    Raises:
        StoreUnavailableError: a store did not answer; deliver the job again.
        NotFoundError: there is no such batch.
    """
    taken = run(claim(connections, batch_id, first, last, job_id=job_id))
    work = _ChunkWork(connections, taken, run, analyzer, queue_drain)
    try:
        work.go()
    except TransientError:
        # The store is away: the claim ends by itself, or at once for the same job.
        raise
    except BaseException:
        work.give_back()
        raise
    return work.report


class _ChunkWork:
    """One claim being worked on."""

    def __init__(
        self,
        connections: Connections,
        taken: Claim,
        run: Run,
        analyzer: Analyzer,
        queue_drain: Callable[[], None],
    ) -> None:
        self.report = ChunkReport(claimed=len(taken.items))
        self._connections = connections
        self._claim = taken
        self._run = run
        self._analyzer = analyzer
        self._queue_drain = queue_drain
        self._limits = connections.settings.batch
        self._begun = 0  # items before this place were begun
        self._unstored: list[ItemOutcome] = []
        self._stored_at = self._extended_at = time.monotonic()

    def go(self) -> None:
        """Work until all items are ended, or the claim is gone."""
        known = self._find_known()
        for item in self._claim.items:
            if not self._still_ours():
                self.report.stopped = True
                break
            self._begun += 1
            outcome = self._settle(item, known.get(self._file_id(item)))
            if outcome is not None:
                self._unstored.append(outcome)
            if self._is_flush_due():
                self._flush()
        self._flush()
        if self.report.again:
            self._run(release(self._connections, self._claim))

    def give_back(self) -> None:
        """Store what is known and return the rest, when something ended the loop from outside."""
        untouched = [item.id for item in self._claim.items[self._begun :]]
        try:
            self._flush()
            self._run(release(self._connections, self._claim, untouched=untouched))
        except TransientError as error:
            _log.warning("batch_claim_left", batch_id=str(self._claim.batch_id), reason=str(error))

    def _settle(self, item: ClaimedItem, known: AudioFile | None) -> ItemOutcome | None:
        """Return how the item ended; None if it has to be tried again."""
        if item.trials >= self._limits.max_attempts:
            return outcome_of_lost_worker(item)
        try:
            if known is not None and self._is_unchanged(item, known):
                return outcome_of_known(self._claim, item, known)
        except TransientError as error:
            return self._put_off(item, error)
        alone = item.attempts > 1
        if alone and not self._begin_trial(item):
            return None
        # A file that was alone at fault before is kept apart; after a worker's death most are not.
        return self._analyze(item, isolated=item.trials > 0)

    def _begin_trial(self, item: ClaimedItem) -> bool:
        """Get ready for a file that may end this process: it alone is to be blamed for that."""
        self._flush()
        if self._run(begin_trial(self._connections, self._claim, item)):
            return True
        self._look_at_claim()
        return False

    def _put_off(self, item: ClaimedItem, error: TransientError) -> ItemOutcome | None:
        if item.attempts >= self._limits.max_attempts:
            return outcome_of_transient(item, str(error))
        self.report.again += 1
        return None

    def _analyze(self, item: ClaimedItem, *, isolated: bool) -> ItemOutcome | None:
        observed_at, began = datetime.now(UTC), time.monotonic()
        try:
            analysis = self._look_into(item.path, isolated)
        except TransientError as error:
            return self._put_off(item, error)
        return outcome_of_analysis(
            self._claim,
            item,
            analysis,
            analyzer=(self._analyzer.name, self._analyzer.version),
            observed_at=observed_at,
            seconds=time.monotonic() - began,
        )

    def _look_into(self, path: Path, isolated: bool) -> "FileAnalysis":
        try:
            return self._analyzer.analyze(path, isolated)
        except MemoryError:
            # The guarded child has its own bound, and reports what goes beyond it as an outcome.
            return self._analyzer.analyze(path, True)

    def _is_unchanged(self, item: ClaimedItem, known: AudioFile) -> bool:
        if not can_reuse(known, self._analyzer.version):
            return False
        try:
            return self._analyzer.hash_file(item.path) == known.content_hash
        except AudioRejectedError:
            return False  # the analysis will say why it is refused now

    def _is_flush_due(self) -> bool:
        waited = time.monotonic() - self._stored_at
        return len(self._unstored) >= FLUSH_ITEMS or (bool(self._unstored) and waited >= FLUSH_S)

    def _flush(self) -> None:
        if self._unstored:
            outcomes = self._unstored
            stored = self._run(record(self._connections, self._claim, outcomes))
            self._unstored = []
            if stored.drain_due:
                self._queue_drain()
            self._count(outcomes, stored.finished)
        self._stored_at = time.monotonic()

    def _count(self, outcomes: list[ItemOutcome], finished: int) -> None:
        if finished < len(outcomes):
            # MongoDB doesn't say which were lost, so none is counted.
            self._look_at_claim()
            return
        for outcome in outcomes:
            self.report.ended[outcome.state] = self.report.ended.get(outcome.state, 0) + 1

    def _still_ours(self) -> bool:
        """Look at the claim, and extend it, before half of its time is gone."""
        if time.monotonic() - self._extended_at < self._limits.claim_s / 2:
            return True
        held = self._run(extend(self._connections, self._claim))
        self._extended_at = time.monotonic()
        return held > 0

    def _look_at_claim(self) -> None:
        """Ask at the next item whether the claim still holds anything."""
        self._extended_at = -math.inf

    def _find_known(self) -> dict[UUID, AudioFile]:
        async def find() -> list[AudioFile]:
            await self._connections.documents()
            ids = [self._file_id(item) for item in self._claim.items]
            return await AudioFileRepository().find_many(ids)

        return {file.id: file for file in self._run(find())} if self._claim.items else {}

    def _file_id(self, item: ClaimedItem) -> UUID:
        return audio_file_id(self._claim.owner_id, item.path)
